"""VT-x: the VMCS, and what an entry needs."""
