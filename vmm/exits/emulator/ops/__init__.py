"""What instructions do, one kind a file; each has a `TABLE` from mnemonic to builder."""
