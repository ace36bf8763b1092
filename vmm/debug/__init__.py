"""The debugger: a VM seen from outside, stopped anywhere, run forwards and backwards."""
