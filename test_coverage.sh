#!/usr/bin/env sh
# Run the tests with a coverage report. It covers the test process, not the services that tests start.
set -eu
cd "$(dirname "$0")"
make .make/test
.venv/bin/python -m pytest -q -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered --cov-report=html "$@"
