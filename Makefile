# Everything runs in .venv, which is made on demand and renewed when pyproject.toml changes.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install
DEMO_STAMP := $(VENV)/.demo-installed
DEV_STAMP := $(VENV)/.dev-installed
VELA_STAMP := $(VENV)/.vela-installed
DOCS_STAMP := $(VENV)/.docs-installed
MIN_VENV := .venv-min
MIN_STAMP := $(MIN_VENV)/.installed

# Neighbouring tests share what they prepare: each worker takes a run of them.
PARALLEL := --numprocesses auto --dist worksteal

export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo bench test test-all test-min test-backends test-pythons lint format arm64 docs docs-supported docs-rewrites dist clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-15s %s\n", $$1, $$2 }'

demo: $(DEMO_STAMP)  ## Train, quantize, fine-tune, export and verify a small ResNet, offline
	$(BIN)/python examples/digits_demo.py

bench: $(DEMO_STAMP)  ## Run the benchmarks, TFMOT beside ours too, into build/bench (BENCH="--only speed" for some)
	$(BIN)/python benchmarks/run_all.py $(BENCH)

test: $(DEV_STAMP)  ## Run the tests, the slow ones left out (COVERAGE=--cov: their branch coverage too)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(COVERAGE)

test-all: $(VELA_STAMP)  ## Run all tests, those with Arm's compiler for NPUs too
	$(BIN)/python -m pytest $(PARALLEL) --ignore tests/test_applications.py
	$(BIN)/python -m pytest tests/test_applications.py  # one by one: the giants take 10 GiB each

# Keras 3.15.0 asks a number's method about None, which Python deprecates; 3.15.1 does not.
OLD_WARNINGS := -W 'ignore:NotImplemented should not be used:DeprecationWarning'

test-min: $(MIN_STAMP)  ## Run the tests with the oldest versions that are claimed (TESTS=tests/data for some)
	$(MIN_VENV)/bin/python -m pytest $(PARALLEL) -m "not slow" $(OLD_WARNINGS) $(TESTS)

# What the backends of Keras cannot do is skipped by name.
test-backends: $(DEV_STAMP)  ## Run the contract and training tests on JAX and on PyTorch, which it installs
	@$(PIP) --editable '.[torch,tensorboard]'
	@for backend in jax torch; do \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest $(PARALLEL) -m "not slow" \
	    tests/layers/test_contract.py tests/test_training.py || exit 1; \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest $(PARALLEL) tests/test_own_loops.py \
	    tests/test_extending.py tests/callbacks/test_tensorboard.py || exit 1; done
	$(BIN)/python -m pytest tests/test_backends.py tests/test_jax.py tests/test_jax_distribution.py tests/test_torch.py

test-pythons:  ## Run the tests on each Python that is claimed and installed
	@for python in python3.11 python3.12 python3.13; do \
	  if $$python -c '' 2>/dev/null; then $(MAKE) PYTHON=$$python VENV=.venv-$$python test || exit 1; \
	  else echo "$$python is not installed: not tested."; fi; done

lint: $(DEV_STAMP)  ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(DEV_STAMP)  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

arm64: | $(BIN)/python  ## Install an emulated ARM64 Python with LiteRT (Debian, Ubuntu), for kernels="arm64"
	@PYTHON=$(CURDIR)/$(BIN)/python tools/setup_arm64.sh

# Without --quiet, with which mkdocs does not count warnings as errors.
docs: $(DOCS_STAMP)  ## Build the site of the documentation into build/site
	@NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mkdocs build

docs-supported: $(DEV_STAMP)  ## Write docs/supported.md from the registry of layers
	$(BIN)/python docs/generate_supported.py

docs-rewrites: $(DEV_STAMP)  ## Write docs/rewrites.md from the passes, run on small models
	$(BIN)/python -m docs.generate_rewrites

dist: $(BIN)/python  ## Build the wheel and the source archive into dist
	@$(PIP) build
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m build --outdir dist .

clean:  ## Remove .venv and its like, caches and build results
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "keras_qat needs Python >= 3.11; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another interpreter, for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu the package python3-venv is needed." >&2; exit 1; }

$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing keras_qat and what the demo needs into $(VENV) (TensorFlow: a few minutes) ..."
	@$(PIP) --editable '.[cli]'
	@touch $@

# The development environment holds the demo's too.
$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing keras_qat and the tools for tests and checks into $(VENV) (TensorFlow: a few minutes) ..."
	@$(PIP) --editable '.[cli,test,lint]'
	@touch $(DEMO_STAMP) $@

$(VELA_STAMP): $(DEV_STAMP)
	@$(PIP) --editable '.[vela]'
	@touch $@

$(DOCS_STAMP): pyproject.toml | $(BIN)/python
	@$(PIP) --editable '.[docs]'
	@touch $@

$(MIN_STAMP): pyproject.toml requirements-min.txt
	@$(MAKE) VENV=$(MIN_VENV) $(MIN_VENV)/bin/python
	@echo "Installing the oldest versions of requirements-min.txt into $(MIN_VENV) ..."
	@$(MIN_VENV)/bin/python -m pip --quiet --quiet --disable-pip-version-check install \
	  -r requirements-min.txt --editable .
	@touch $@
