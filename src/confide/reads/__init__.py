"""Reading current configs fast, and access statistics."""
