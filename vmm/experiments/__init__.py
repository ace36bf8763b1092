"""Experiments: each a claim of the literature as a reproducible run with a table and a chart."""
