"""Guest memory as the hypervisor lays it out."""
