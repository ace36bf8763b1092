"""What the hypervisor does about each exit; `table.py` says which handler is whose."""
