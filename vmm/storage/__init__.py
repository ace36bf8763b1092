"""Disk images as files: what is behind a guest's disk, whatever device shows it."""
