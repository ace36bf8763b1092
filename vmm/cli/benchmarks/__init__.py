"""What ``ring1 bench`` measures: one module a subject, each returning rows."""
