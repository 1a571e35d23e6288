"""The load tester: an open model, a client of the public API like any other."""
