"""The way in from the host: what is polled, what is waited for, what came in and when."""
