# Four commands to know: `make demo`, `make test`, `make lint`, `make lock`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEEDS ?= 1000
CHAOS_S ?= 300

# Whether a Python is one that Harmonia runs on.
WILL_DO := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))

# Make .venv, unless it is there already with a Python that will do.
define MAKE_VENV
$(BIN)/python -c '$(WILL_DO)' 2>/dev/null || { \
  $(PYTHON) -c '$(WILL_DO)' 2>/dev/null || { \
    found=$$($(PYTHON) --version 2>&1 || :); \
    echo "Harmonia needs Python 3.11 to 3.14, which '$(PYTHON)' is not ($$found)." >&2; \
    echo "Name one that will do: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
endef

export RAY_USAGE_STATS_ENABLED := 0
# Bytecode is compiled once, at install: without it every process that Ray starts compiles again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-browser simulate chaos rpc-failures mutants bench bench-full \
  bench-events lint format docs lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(MAKE_VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@echo "Installing Harmonia and what it needs into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --editable .
	@$(BIN)/python -m compileall -q harmonia_actors harmonia_serve persistence
	@touch $(STAMP)

install: $(STAMP) ## Make .venv with everything in it

demo: $(STAMP) ## Watch a workflow fetch data, analyse it and write a PDF report
	@$(BIN)/python examples/demo.py

test: $(STAMP) ## Run all the tests
	@$(BIN)/python -m pytest $(ARGS)

test-browser: $(STAMP) ## Try the example page in a real Chromium, if there is one on PATH
	@$(BIN)/python -m pytest tests/browser $(ARGS)

simulate: $(STAMP) ## Run SEEDS=100000 seeds of the simulation, on all cores
	@$(BIN)/python -m tests.simulation.run --seeds $(SEEDS)

mutants: $(STAMP) ## Switch off each guard in a copy, and see tests turn red
	@$(BIN)/python -m tests.mutation.run $(ARGS)

chaos: $(STAMP) ## Kill and stop real processes under load for CHAOS_S=300 seconds, then judge
	@$(BIN)/python -m tests.chaos.run --seconds $(CHAOS_S)

rpc-failures: $(STAMP) ## Lose Ray's own calls of each kind in each way, then judge; 15 minutes
	@$(BIN)/python -m tests.chaos.rpc_failures $(ARGS)

bench: $(STAMP) ## Compare with raw Ray and DBOS, in about ten minutes
	@$(BIN)/python -m benchmarks.run $(BENCH)

bench-full: $(STAMP) ## Compare with all peers; hours, and a second call goes on
	@$(BIN)/python -m benchmarks.run --form full $(BENCH)

bench-events: $(STAMP) ## Send events to 1,000 subscribers, beside a bare server; ten minutes
	@$(BIN)/python -m benchmarks.events $(BENCH)

lint: $(STAMP) ## Check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Put the code into its one format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(STAMP) ## Write the README's tables again from the code
	@$(BIN)/python -m tests.support.readme_tables

lock: ## Resolve requirements.lock again from the ranges in pyproject.toml
	@$(MAKE_VENV)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	  --no-emit-find-links --no-header --group dev -o requirements.lock pyproject.toml

clean: ## Remove what install and tests made
	rm -rf $(VENV) benchmarks/peers/*/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
