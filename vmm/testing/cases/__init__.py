"""Declarative cases: initial state, code and expected state in TOML."""
