"""The devices of the PC board: one device, one file; a device knows offsets, not addresses."""
