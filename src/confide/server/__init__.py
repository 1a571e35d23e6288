"""Settings, wiring, workers and health."""
