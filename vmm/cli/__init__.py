"""The command line: parse, call, print. Host time, threads and signals live here alone."""

import gc

gc.set_threshold(20_000, 20)  # a start makes 50,000 objects, none of which goes away
