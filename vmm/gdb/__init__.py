"""The GDB remote serial protocol: a VM as gdb sees it."""
