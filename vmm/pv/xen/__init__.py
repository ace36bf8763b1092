"""Xen PV: what the hypervisor and its first domain do in software for a PV guest."""
