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

.PHONY: help venv lock nightly up down test test-slow lint format bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.locked  ## the locked environment in .venv

$(VENV)/.locked: requirements.txt pyproject.toml
	@test -x $(BIN)/uv || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Vigil needs Python 3.11 or newer; name one with make PYTHON=python3.12" >&2; exit 2; }; $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "$$(grep -E '^uv==' requirements.txt | cut -d' ' -f1)"; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(FIND_LINKS) -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock:  ## resolve pyproject.toml into requirements.txt
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate pyproject.toml \
	  | grep -vE '^(nvidia|triton|cuda)' > requirements.tmp  # CUDA parts come with the CUDA build of torch, where that is what gets installed
	@{ echo "# Made by 'make lock' from pyproject.toml. Do not edit."; cat requirements.tmp; } > requirements.txt && rm requirements.tmp
