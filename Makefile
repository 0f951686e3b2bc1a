# make demo    fresh machine to result: environment, base model, real data, experts, routers, a table and a page
# make test    fresh machine to tests passed
# make check   format, lint, types, tests: what every commit passes
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo
ARGS ?=

.PHONY: demo test test-all check format docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/staf demo --out $(OUT) $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n auto -m 'slow or not slow'

check: $(VENV)/installed
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

format: $(VENV)/installed
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: $(VENV)/installed
	$(BIN)/python -m staf.cli.reference > docs/cli.md

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
