#!/usr/bin/env sh
# The old door to the tests, with coverage: what the tests of this process reach.
set -eu
cd "$(dirname "$0")"
make .make/test
.venv/bin/python -m pytest -q -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered --cov-report=html "$@"
