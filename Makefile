# make export: set-up and the main job on whatever data there is. make test: set-up and the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Two processes, as CI has two cores; a file's tests stay together, for what they share. One that
# ended by a signal ends the run: xdist 3.8 waits forever for what the next one is to take over.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

.PHONY: docs tutorials export example test test-all test-arm test-kernels check format bench clean help

help:
	@echo "make export    prune, export and measure (ARGS='--model mlp --prune 25' to change it)"
	@echo "make test      the tests; make test-all: with the slow ones"
	@echo "make test-arm  files on emulated Raspberry Pis, where Debian's packages can be had"
	@echo "make test-kernels  the tests that train, as other processors and numbers of threads compute"
	@echo "make check     lint and types; make format: put the code in order"
	@echo "make example   the files in exported/example (TFPRUNE_MNIST=mnist.npz)"
	@echo "make docs      the site of the documentation, in site/"
	@echo "make tutorials runs the notebooks in docs/ and keeps what they show"
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

# What a training leads to differs a little with kernels and threads; see tests/README.md.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 XLA_FLAGS=--xla_cpu_max_isa=AVX2 OPENBLAS_CORETYPE=Haswell
ONE_THREAD := TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
TWO_THREADS := TF_NUM_INTRAOP_THREADS=2 OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2
test-kernels: $(VENV)/made-dev
	@failed=; for kernels in TF_ENABLE_ONEDNN_OPTS=0 TF_ENABLE_ONEDNN_OPTS=1 "$(ONE_THREAD)" \
			"$(TWO_THREADS)" OPENBLAS_CORETYPE=Haswell OPENBLAS_CORETYPE=SkylakeX "$(AVX2)"; do \
		case $$kernels in *SkylakeX*) grep -qs avx512f /proc/cpuinfo || continue;; esac; \
		echo "== $$kernels"; \
		env $$kernels $(PYTEST) -q -m "trains and not slow" $(ARGS) || failed="$$failed\n$$kernels"; \
	done; test -z "$$failed" || { printf "failed with:$$failed\n"; exit 1; }

check: $(VENV)/made-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/made-docs: $(VENV)/made requirements-docs.txt
	$(BIN)/python -m pip install --quiet -r requirements-docs.txt
	@touch $@

docs: $(VENV)/made-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

tutorials: $(VENV)/made-dev
	$(BIN)/python -m docs.notebooks

format: $(VENV)/made-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/made
	$(BIN)/python -m benchmarks.moments
	$(BIN)/python -m benchmarks.sizes

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
