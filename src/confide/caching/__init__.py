"""Bounded memory, the lease and single flight."""
