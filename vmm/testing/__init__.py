"""Instruction-level tests: the pytest plugin, declarative cases, oracles, fuzzing, coverage."""
