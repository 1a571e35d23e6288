"""Where everything lies, twice: SQLite and PostgreSQL behind one contract."""
