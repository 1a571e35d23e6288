"""Confide stores and serves the integration configs of tenants."""

__version__ = "0.1.0"
