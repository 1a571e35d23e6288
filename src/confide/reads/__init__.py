"""Reading the current config fast."""
