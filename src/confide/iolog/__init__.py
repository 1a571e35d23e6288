"""I/O events: noted on the way of a request, written apart from it, read by the report."""
