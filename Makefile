# One command for each thing a person does here; `make` alone lists them.
# Everything that installs does so into .venv* from pinned versions, again only when a pin or the package's metadata changed.

BOOTSTRAP ?= $(shell command -v python3.11 || command -v python3)
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit gpu-check fuzz torture bench bench-peers-env pictures examples docs lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo.stamp  ## train the lecture's network on real digits, draw it, show its generated source
	@$(BIN)/python -m flowgraph.cli demo

test: lint unit  ## everything that must hold: style, types, layering, tests

lint: .venv/test.stamp
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

unit: .venv/test.stamp
	@$(BIN)/python -m pytest -q -rs -n $(JOBS)

gpu-check:  ## run every kernel on this machine's GPU; needs no .venv and no network, only PYTHON's packages
	@$(PYTHON) -m flowgraph.gpu_check

fuzz: .venv/test.stamp  ## random graphs of up to 60 ops down every path, until stopped
	@$(BIN)/python -m tests.fuzz --operations 60

torture: .venv/test.stamp  ## a training killed at 100 random moments and resumed each time: the same bits
	@FLOWGRAPH_KILLS=100 $(BIN)/python -m pytest -q tests/test_checkpoint.py -k kills

bench: .venv/demo.stamp bench-peers-env  ## time one training step beside PyTorch and JAX (5 minutes; wants a quiet machine)
	@$(BIN)/python -m benchmarks.mlp

bench-peers-env: .venv-peers/peers.stamp  ## PyTorch and JAX, in a virtual environment of their own

pictures: .venv/demo.stamp  ## the pictures in README and docs, from the code they show
	@$(BIN)/python -m tools.pictures

examples: .venv/test.stamp  ## run every example of the lecture in full (hours), and write the docs' numbers and pictures
	@$(BIN)/python -m tools.examples

docs: .venv/docs.stamp  ## the documentation, as HTML
	@$(BIN)/sphinx-build -W -q docs docs/_build/html && echo "docs/_build/html/index.html"

lock:  ## write requirements/*.txt anew from pyproject.toml and the registry
	@tools/lock $(BOOTSTRAP)

clean:  ## remove what the commands above made
	rm -rf .venv .venv-peers build dist out docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# A set of pins lives in requirements/NAME.txt; a stamp says that .venv has it and the package itself, editable.
.venv/test.stamp .venv/docs.stamp: requirements/demo.txt
.venv/%.stamp: requirements/%.txt pyproject.toml setup.cfg
	@tools/install $(BOOTSTRAP) .venv requirements/$*.txt --editable
	@touch $@

.venv-peers/%.stamp: benchmarks/peers/requirements.txt
	@tools/install $(BOOTSTRAP) .venv-peers benchmarks/peers/requirements.txt
	@touch $@
