"""Recorded single steps of old processors, as public suites have them: read, run, compared."""
