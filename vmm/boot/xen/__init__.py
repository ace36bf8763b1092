"""Xen PV's domain builder: what a PV kernel finds when it starts."""
