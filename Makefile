# `make run` and `make test` need python3 (3.11 or newer) and make, nothing else: both create .venv from nothing.
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test lint format types bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: .venv/run.stamp ## install, then generate a real place at 10 m and a zoom strip into out/
	@$(PY) -m terraloom demo --out-dir out

test: .venv/dev.stamp ## install, then run the whole test suite, a file of tests to each of JOBS processes (one a core)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --dist loadfile

lint: .venv/dev.stamp ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: .venv/dev.stamp ## let ruff fix and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: .venv/dev.stamp ## mypy --strict on src
	$(PY) -m mypy --strict src

bench: .venv/bench.stamp ## speed of the cascade beside its rivals
	$(PY) benchmarks/cascade.py

docs: .venv/dev.stamp ## write docs/cli.md from the command line itself
	$(PY) tests/test_house.py > docs/cli.md

clean: ## remove .venv, caches and out/
	rm -rf .venv out dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Terraloom needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) -a -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@echo "Installing Terraloom and what it needs into .venv (a few minutes, only once) ..."
	@$(PIP) --editable '.[openvino,text,serve]'
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	@echo "Installing what training and the tests need into .venv ..."
	@$(PIP) --editable '.[openvino,text,serve,train,zarr,dev]'
	@touch $@

.venv/bench.stamp: .venv/dev.stamp
	@echo "Installing the rivals of the benchmark into .venv ..."
	@$(PIP) --editable '.[openvino,text,serve,train,zarr,dev,bench]'
	@touch $@
