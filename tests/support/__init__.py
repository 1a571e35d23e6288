"""Support for tests: a real PostgreSQL, the app with users, real processes, and the search for test secrets."""
