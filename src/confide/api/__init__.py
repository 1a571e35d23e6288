"""The HTTP API: what is said on the wire, and nothing of what it means."""
