# make export: set-up and the main job on whatever data there is. make test: set-up and the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Two processes, as CI has two cores; a file's tests stay together, for what they share.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: export example test test-all test-arm check format bench clean help

help:
	@echo "make export    prune, export and measure (ARGS='--model mlp --prune 25' to change it)"
	@echo "make test      the tests; make test-all: with the slow ones"
	@echo "make test-arm  files on emulated Raspberry Pis, where Debian's packages can be had"
	@echo "make check     lint and types; make format: put the code in order"
	@echo "make example   the files in exported/example (TFPRUNE_MNIST=mnist.npz)"
	@echo "make bench     the benchmarks"

$(VENV)/made: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tfprune needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/made-dev: $(VENV)/made requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

export: $(VENV)/made
	$(BIN)/python -m tools.export --prune 30 $(ARGS)

example: $(VENV)/made-dev
	$(BIN)/python -m tools.example $(ARGS)

test: $(VENV)/made-dev
	$(PYTEST) $(ARGS)

test-all: $(VENV)/made-dev
	$(PYTEST) -m '' $(ARGS)

test-arm: $(VENV)/made-dev
	$(BIN)/python -m pytest -m arm -rs $(ARGS)

check: $(VENV)/made-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/made-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/made
	$(BIN)/python -m benchmarks.moments
	$(BIN)/python -m benchmarks.sizes

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
