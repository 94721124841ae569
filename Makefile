# make quickstart   install, then train a tool-using agent and write its report
# make test         the tests, in the same environment
# make thorough     all of them: half an hour on two cores
# make parity       models against torch, transformers and peft, installed once
# make check        format, lint and types, without changing a file
# make format       format and mend what can be mended
# make clean        remove the environment and caches; runs/ stays
#
# PYTHON=python3.12 picks the interpreter, ARGS="--seed=1" passes flags on,
# TESTS=tests/losses_test.py picks tests.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?=

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

.NOTPARALLEL:
.PHONY: quickstart test thorough parity check format clean

quickstart: $(VENV)/.installed
	@$(RUN) experiments/quickstart.py $(ARGS)

test: $(VENV)/.installed_test
	@JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(RUN) -m pytest -n 2 $(TESTS)

thorough: $(VENV)/.installed_test
	@THOROUGH=1 JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(RUN) -m pytest -n 2 $(TESTS)

parity: $(VENV)/.installed_parity
	@JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(RUN) -m pytest -n0 -rs \
	  tests/pretrained_live_test.py

check: $(VENV)/.installed_check
	@$(RUN) -m ruff format --check --quiet . || \
	  { echo 'Some files are not formatted: run `make format`.'; exit 1; }
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m mypy

format: $(VENV)/.installed_check
	@$(RUN) -m ruff check --quiet --fix .
	@$(RUN) -m ruff format --quiet .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'agentic_jax needs Python 3.11 or later; $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1)."; \
	    echo 'Name another one: make PYTHON=python3.12'; exit 1; }
	@echo 'Making $(VENV) (once; about a minute) ...'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || \
	  { echo 'On Debian and Ubuntu: apt install python3-venv'; \
	    rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.installed: setup.py $(VENV)/.created
	@echo 'Installing jax, flax and what else setup.py names (a few minutes) ...'
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed_test: $(VENV)/.installed
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.installed_parity: $(VENV)/.installed_test
	@echo 'Installing torch, transformers and peft (some minutes) ...'
	@$(PIP) -e '.[parity]'
	@touch $@

$(VENV)/.installed_check: $(VENV)/.installed
	@$(PIP) -e '.[check]'
	@touch $@
