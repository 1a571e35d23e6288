"""Integration types: schemas, validation, defaults and secret members."""
