# voucher: set-up and everyday tasks. Needs make and a Python of at least 3.11; `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter to set up with. Another one: make setup PYTHON=/usr/bin/python3.12
PYTHON ?=
# Which faiss: cpu or gpu. Changing it sets the environment up again.
EXTRA ?= cpu
# Which torch: empty takes what the package index serves; `TORCH_BACKEND=cpu` asks for the build without
# CUDA (about 4 GB less), `TORCH_BACKEND=auto` for the one that fits the driver. Both need the internet.
TORCH_BACKEND ?=
# More arguments for pytest: make test PYTEST_ARGS="-k gate"
PYTEST_ARGS ?=
# How many tests run at one time; each process loads torch and trains its own small network.
TEST_PROCESSES ?= 2
# How often `make faults` kills something.
KILLS ?= 200
# How long `make soak` sends everything at the same time.
LOAD_SECONDS ?= 1800
# More arguments for the demonstration: make demo DEMO_ARGS=--no-serve
DEMO_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCK := docker/lock/$(EXTRA).txt
STAMP := $(VENV)/.set-up-$(EXTRA)$(if $(TORCH_BACKEND),-$(TORCH_BACKEND))
UV_INSTALL := $(BIN)/uv pip install --python $(BIN)/python
# The lock lists the CUDA libraries of the index's torch. With another build of torch it may only limit
# versions, or these 4 GB would be installed all the same.
REQUIREMENTS := $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND) -r pyproject.toml --extra $(EXTRA) --extra dev -c $(LOCK),-r $(LOCK))

# Institutions often have certificates of their own; pip trusts the system's by itself, uv when it is told.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

.PHONY: help setup demo test faults soak contract coverage lint types imports lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create .venv and install the locked versions (EXTRA=gpu for the GPU, TORCH_BACKEND=cpu)

# A virtual environment that an interrupted run left half made is made again; a whole one is kept.
$(BIN)/uv:
	@python="$$(.ci/find-python "$(PYTHON)")"; \
	echo "setting up $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV) || { \
		echo "Python's venv module does not work; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -om1 '^uv==[^ ;]*' $(LOCK))"

# The stamp is written last: after an interruption the same command goes on, with uv's cache. Faiss for CPU
# and for GPU install the same module, so the other one is removed first.
$(STAMP): $(LOCK) pyproject.toml | $(BIN)/uv
	@rm -f $(VENV)/.set-up-*
	@$(BIN)/uv pip uninstall --quiet --python $(BIN)/python $(if $(filter gpu,$(EXTRA)),faiss-cpu,faiss-gpu) 2>/dev/null || true
	$(UV_INSTALL) $(REQUIREMENTS)
	$(UV_INSTALL) --quiet --no-deps --build-constraints $(LOCK) -e .
	@touch $@

demo: $(STAMP) ## draw a small flora, train, evaluate and serve it (DEMO_ARGS=--no-serve stops before serving)
	$(BIN)/voucher demo $(DEMO_ARGS)

test: $(STAMP) ## run the tests and measure their coverage
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal --cov --cov-report= $(PYTEST_ARGS)

faults: $(STAMP) ## kill servers and workers at 200 random moments (KILLS=1000 for more); takes minutes
	VOUCHER_TEST_KILLS=$(KILLS) $(BIN)/pytest tests/faults/test_kills.py -rP --timeout=7200

soak: $(STAMP) ## half an hour of mixed load, and 10,000 malformed uploads (LOAD_SECONDS=60 for less)
	VOUCHER_TEST_LOAD_SECONDS=$(LOAD_SECONDS) $(BIN)/pytest tests/faults/test_mixed_load.py -rP --timeout=7200
	VOUCHER_TEST_UPLOADS=10000 $(BIN)/pytest tests/app/test_malformed_uploads.py -rP --timeout=7200

contract: $(STAMP) ## ask each operation of the API 40 times with what its description allows, and with what it does not
	VOUCHER_TEST_EXAMPLES=40 $(BIN)/pytest tests/app/test_openapi_contract.py --timeout=7200

coverage: $(STAMP) ## show the coverage of the last test run; models/ must reach 90 %
	$(BIN)/coverage report --include='models/*' --fail-under=90
	@$(BIN)/coverage report --include='app/*,indexer/*'

lint: $(STAMP) ## check style, shell scripts and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	.ci/check-scripts $(BIN)

types: $(STAMP) ## check types
	$(BIN)/mypy

imports: $(STAMP) ## check that the layers do not import each other
	$(BIN)/lint-imports

LOCKED := --python-version 3.11 --universal --no-emit-index-url --no-header --quiet
lock: $(BIN)/uv ## resolve the newest allowed versions into docker/lock (LOCK_ARGS="--upgrade-package torch" for one)
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra dev $(LOCKED) $(LOCK_ARGS) -o docker/lock/cpu.txt
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra dev $(LOCKED) $(LOCK_ARGS) -c docker/lock/cpu.txt -o docker/lock/gpu.txt

clean: ## remove the environment, caches and build outputs; homes with models and images stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
