"""Paravirtual dialects: what a guest that knows its hypervisor may ask of it."""
