"""Run the command line with `python -m confide`."""

from confide.cli import main

if __name__ == "__main__":  # worker processes import this module too
    main()
