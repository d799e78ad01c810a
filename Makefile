# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint types docs setup clean
setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "glora-search needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --build-constraint constraints.txt --compile-bytecode --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/glora-search demo

# Many processes of the tests import torch, which takes half as long from compiled files. The set-up
# compiles those of the packages at once, in all cores.
test test-fast: export PYTHONDONTWRITEBYTECODE =

# Three processes for two cores: tests of clusters and servers wait for a third of their time.
test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Without Ray, database servers and long trainings.
test-fast: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not postgres"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir site

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis site
