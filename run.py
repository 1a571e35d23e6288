"""The old door: `python run.py` serves, as `confide serve` does."""

from confide.cli import main_serve

if __name__ == "__main__":  # workers import this module too
    main_serve()
