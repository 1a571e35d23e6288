"""The database engines SQLite and PostgreSQL, with migrations and backup."""
