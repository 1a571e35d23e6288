"""Configs: saving, previewing, history, listing, export and import."""
