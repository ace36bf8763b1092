"""A host folder served to a guest by the FUSE protocol: every path stays below the folder."""
