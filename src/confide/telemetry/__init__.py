"""I/O events and their sinks, the I/O report, metrics and logs."""
