"""Connect to PostgreSQL: addresses with several hosts, and attempts that overlap."""
