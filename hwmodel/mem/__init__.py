"""Machine memory."""
