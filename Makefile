# Everything runs from .venv in the checkout; a stamp in it says what is installed, so that a second
# call installs nothing until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV ?= .venv
BUDGET ?= 2.00
ARGS ?=
WORKERS ?= 2
# It pins a version of botocore, so it cannot share an environment with Siren.
MINISTACK ?= 1.5.33

# Tests kill runs between fsyncs; in memory, where there is such a folder, those cost nothing.
TEST_TEMP := $(if $(wildcard /dev/shm/.),PYTEST_DEBUG_TEMPROOT=/dev/shm)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test coverage lint format bench docs ministack clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo 'Variables: BUDGET=2.00 (dollars), ARGS="--workload ... --seed ..." (run, test, bench), PYTHON=python3'

run: $(VENV)/.installed-base ## Install Siren, then train the default job on the twin within BUDGET dollars
	$(BIN)/python -m siren.run --budget $(BUDGET) $(ARGS)

test: lint ## Install what tests need, check style, types and layers, then run all tests
	$(TEST_TEMP) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

# Apart from `test`: following every line takes two thirds more CPU time.
coverage: $(VENV)/.installed-dev ## Run all tests and see which lines they reach; fails below 90%
	$(TEST_TEMP) $(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term $(ARGS)

lint: $(VENV)/.installed-dev ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy siren
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Run the benchmarks
	$(BIN)/python experiments/bench/run.py $(ARGS)

# Always from scratch: pages are made from the code as well, whose changes Sphinx does not see.
docs: $(VENV)/.installed-dev ## Build the documentation into build/docs
	$(BIN)/python -m sphinx -W --keep-going -n -E -q -b html -c docs -d build/doctrees . build/docs
	@echo 'Open build/docs/index.html'

ministack: $(VENV)/ministack/.installed ## Install another Lambda endpoint, in an environment of its own, for the conformance tests
	@echo 'Now: SIREN_MINISTACK_PYTHON=$(abspath $(VENV))/ministack/bin/python make test'

$(VENV)/ministack/.installed: | $(BIN)/pip
	$(PYTHON) -m venv $(VENV)/ministack
	$(VENV)/ministack/bin/python -m pip install --quiet --disable-pip-version-check 'ministack==$(MINISTACK)'
	@touch $@

clean: ## Remove .venv and everything that tools left behind
	rm -rf $(VENV) build dist htmlcov .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Siren needs Python 3.11 or newer; "$(PYTHON)" is missing or older. Try: make PYTHON=python3.11 ...' >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-base: pyproject.toml constraints.txt | $(BIN)/pip
	@echo 'Installing Siren into $(VENV) (once, about a minute) ...'
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo 'Installing Siren and what its tests need into $(VENV) (once, some minutes) ...'
	@$(PIP) -e '.[dev,aws,dash,docs,local,torch,train]'
	@touch $(VENV)/.installed-base $@
