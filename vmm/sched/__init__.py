"""Who runs when: virtual CPUs take turns on a physical one."""
