"""The instruction executor: Unicorn, driven by the C engine."""
