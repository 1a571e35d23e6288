"""`python -m confide` is the command line."""

from confide.cli import main

if __name__ == "__main__":  # workers import this module too
    main()
