"""Confide keeps and serves every tenant's integration configuration."""

__version__ = "0.1.0"
