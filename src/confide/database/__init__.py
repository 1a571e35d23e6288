"""The two engines, migrations, backup."""
