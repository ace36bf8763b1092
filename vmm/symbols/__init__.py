"""Names for addresses: ELF symbols, DWARF lines, a Linux image's kallsyms, and call chains."""
