"""Confide keeps and serves every tenant's integration configuration."""
