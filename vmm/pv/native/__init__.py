"""ring1's own dialect: the reference contract between a guest and its hypervisor."""
