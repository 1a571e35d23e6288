"""Pages with charts that need nothing but a browser: no network, no second file."""
