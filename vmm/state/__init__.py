"""A VM written down: snapshots in memory, digests."""
