"""Caching primitives: the LRU cache, the lease and single flight."""
