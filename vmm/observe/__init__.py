"""What writes a run down: statistics now, traces later."""
