"""The change feed and watch streams."""
