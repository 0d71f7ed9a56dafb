# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.11+ and make alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := worldstereo cluster actors deployments configs client tests training benchmarks examples

.PHONY: demo test check golden format install clean

demo: install ## the bundled scene on an embedded cluster with the bundled tiny model
	$(BIN)/worldstereo run --input_path examples/demo_scene --output_path outputs

test: install ## the default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: install ## formatting, lint, types
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy

golden: install ## the engine against recorded numbers
	$(BIN)/python -m tests.golden

format: install ## rewrite the sources in the project's format
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml client/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ./client --editable '.[dev]'
	@touch $@

clean: ## remove the virtual environment and caches; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
