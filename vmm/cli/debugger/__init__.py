"""The debugger on a terminal, full-screen."""
