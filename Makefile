# Vigil: every target starts from nothing. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The hospital of the night: demo, diabetes130 or mimic-iv-demo (the last two read VIGIL_TEST_DATA).
DATA ?= demo
# Each hospital is a deployment of its own, with its own state directory.
VIGIL_HOME ?= $(if $(filter demo,$(DATA)),.vigil,.vigil-$(DATA))
# uv does not read pip's settings: pass a find-links directory on where one is set.
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
export VIGIL_HOME

.PHONY: help venv lock nightly up down test test-slow lint format bench browser clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.locked  ## the locked environment in .venv

$(VENV)/.locked: requirements.txt pyproject.toml
	@test -x $(BIN)/uv || { $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Vigil needs Python 3.11 to 3.13; name one with make PYTHON=python3.11" >&2; exit 2; }; $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "$$(grep -E '^uv==' requirements.txt | cut -d' ' -f1)"; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(FIND_LINKS) -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock:  ## resolve pyproject.toml into requirements.txt
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate pyproject.toml \
	  | grep -vE '^(nvidia|triton|cuda)' > requirements.tmp  # CUDA parts come with the CUDA build of torch, where that is what gets installed
	@{ echo "# Made by 'make lock' from pyproject.toml. Do not edit."; cat requirements.tmp; } > requirements.txt && rm requirements.tmp

# VIGIL_TEST_DATA holds the real records: diabetes130/ and mimic-iv-demo/hosp/.
RECORDS := $(if $(VIGIL_TEST_DATA),$(VIGIL_TEST_DATA)/$(if $(filter mimic-iv-demo,$(DATA)),mimic-iv-demo/hosp,$(DATA)))

nightly: venv  ## set up and run one night on the embedded stack (DATA=demo|diabetes130|mimic-iv-demo)
	$(BIN)/vigil night --hospital $(DATA) $(if $(RECORDS),--records $(RECORDS))

up: venv  ## start the embedded stack and say where its pages are
	$(BIN)/vigil stack up

down:  ## stop the embedded stack
	@test ! -x $(BIN)/vigil || $(BIN)/vigil stack down

test: venv  ## the tests, a night of 2,500 patients through the real scheduler among them
	$(BIN)/pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: venv  ## the tests that take long
	$(BIN)/pytest -m slow

lint: venv  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv  ## every performance claim, measured here
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

browser:  ## Chromium from Debian's packages, for the tests that look at pages
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null

clean:  ## stop the stack and remove its state, the environment and caches
	@for home in .vigil .vigil-*; do if test -d $$home && test -x $(BIN)/vigil; then VIGIL_HOME=$$home $(BIN)/vigil stack clean --yes || exit 1; fi; done
	rm -rf $(VENV) .vigil .vigil-* .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
