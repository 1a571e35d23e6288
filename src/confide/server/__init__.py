"""Settings, wiring, worker processes, health, metrics and the old contract."""
