"""Support for tests: real PostgreSQL servers, apps, processes, and the search for test secrets."""
