"""Traces: what an observed run leaves behind, and the forms in which tools read it.

`taps` and the C engine write records, `records` reads them; `ftrace` and `timeline` say what they
mean, `perfetto` writes a timeline down.
"""
