# Everything happens in .venv; `make PYTHON=/path/to/python3.12 setup` chooses another interpreter.
PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin

.PHONY: help setup demo test lint format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/.complete ## Install the library and its tools into .venv, at the versions of constraints.txt

.venv/.complete: pyproject.toml constraints.txt
	@echo "Setting up .venv with $(PYTHON) (some minutes; torch is large)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asymseg needs Python 3.11 or newer; name one with make PYTHON=...")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" # the first that knows --group
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[raster,video,formats,export,serve,ray]" \
		--group test --group lint --group docs
	@touch $@

demo: setup ## Train on the built-in scenes with and without long-range context, and compare
	@echo "Running examples/long_range.py; results go to demo/"
	@$(BIN)/python examples/long_range.py --out demo

test: setup ## Run the tests
	@echo "Running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal # a process for each core, which keeps tests of a file together

lint: setup ## Check style and types, changing nothing
	@echo "Checking style with ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "Checking types with mypy"
	@$(BIN)/mypy

format: setup ## Sort imports and lay out the code
	@echo "Laying out the code with ruff"
	@$(BIN)/ruff check --select I --fix
	@$(BIN)/ruff format

docs: setup ## Build the documentation into site/; nothing in it is loaded from elsewhere when it is read
	@echo "Building the documentation; open site/index.html"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean: ## Remove .venv, demo/, site/ and all caches
	@echo "Removing .venv, demo/, site/, build output and caches"
	@rm -rf .venv demo site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests -name __pycache__ -prune -exec rm -rf {} +
