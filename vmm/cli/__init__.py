"""The command line: parse, call, print. Host time, threads and signals live here alone."""
