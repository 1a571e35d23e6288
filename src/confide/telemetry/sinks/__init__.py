"""Sinks of I/O events. A new sink is one module here and one line in `registry`."""
