"""Load generator with an open model. It uses the public API like any other client."""
