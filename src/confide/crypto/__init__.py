"""Sealing, keys and password hashing, all through one library."""
