"""I/O events, sinks, report, metrics and logs."""
