"""What the tests stand on: a real PostgreSQL, a furnished house, real processes, and the search for canaries."""
