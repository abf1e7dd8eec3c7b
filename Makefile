# Each target works from a bare clone: it makes its own .venv from the lock file first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint bench chaos proto docs clean

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

setup: $(STAMP)
	$(BIN)/penstock setup

demo: setup
	$(BIN)/penstock demo

test: setup
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy libs services tests bench proto docs
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --lint
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate.py --check

bench: setup
	$(BIN)/python -m bench

# About half an hour. The store's suite also runs on the program that PENSTOCK_SECANTUSD_RS names, if it does.
chaos: setup
	$(BIN)/python -m pytest tests/chaos -p no:cacheprovider

proto: $(STAMP)
	$(BIN)/python proto/generate.py

docs: $(STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
