"""Serve with `python run.py`, as `confide serve` does, whether or not the package is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from confide.cli import main_serve

if __name__ == "__main__":  # workers import this module too
    main_serve()
