# Everything runs in a virtual environment of the project's own, made when it is first needed.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
DEMO_SECONDS ?= 60
export DEMO_SECONDS

.PHONY: help prerequisites install ready demo test check format soak bench connectors schema clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

prerequisites:   ## Java, Maven and PostgreSQL, on Debian; elsewhere says what to install
	bash scripts/prerequisites.sh

install: $(VENV)/.installed  ## the virtual environment

# What a fresh machine lacks is installed where that is possible; where all is there, nothing is asked for.
ready: | prerequisites install

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ftstream needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: ready      ## everything from nothing to two equal sites; DEMO_SECONDS=60
	@exec $(BIN)/ftstream demo

test: ready      ## unit, integration and system tests on a real stack
	bash scripts/test.sh $(BIN)/pytest

check: install   ## lint, types, import contract, kept schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/ftstream schemas check

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: install    ## the long, random forms of the tests; FTSTREAM_SOAK_SECONDS=1200
	$(BIN)/pytest -m soak
	FTSTREAM_MODEL_RUNS=200 $(BIN)/pytest -s tests/unit/test_refusal.py
	FTSTREAM_EXAMPLES=200 $(BIN)/pytest -s tests/integration/test_two_writers.py
	FTSTREAM_SEEDS=200 $(BIN)/pytest tests/integration/test_references.py -k whatever
	FTSTREAM_BATCH_ROWS=200000 $(BIN)/pytest tests/system/test_batch.py -k killed
	FTSTREAM_FROZEN_SECONDS=60 $(BIN)/pytest tests/system/test_flows_apart.py

bench: install   ## throughput, latency and memory; writes bench/latest.json
	$(BIN)/ftstream bench

connectors: install  ## render connectors/*.json from flows.py
	$(BIN)/python -m ftstream.capture.render

schema: install  ## write schema.sql, rights.txt and the derived pages of docs/ again
	FTSTREAM_KEEP_SCHEMA=1 $(BIN)/pytest tests/integration/test_schema_of_record.py
	FTSTREAM_KEEP_RIGHTS=1 $(BIN)/pytest tests/integration/test_kept_rights.py
	FTSTREAM_KEEP_PAGES=1 $(BIN)/pytest tests/unit/test_security_page.py tests/unit/test_derived_pages.py

clean:           ## remove the virtual environment and local stacks
	-[ -x $(BIN)/ftstream ] && $(BIN)/ftstream dev down --wipe
	rm -rf $(VENV) .ftstream
