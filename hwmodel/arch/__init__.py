"""Names and layouts of the architecture: tables and hardware words. Imports nothing of ours."""
