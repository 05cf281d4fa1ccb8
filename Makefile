# One command per intent. Each sets up first where it needs to; nothing outside the checkout is changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
# Test processes; each brings its own database.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS_VENV := .venv-audit
TOOLS_BIN := $(TOOLS_VENV)/bin
TOOLS := $(TOOLS_VENV)/.installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
  --no-emit-find-links
# The last release: `buf breaking` compares with it. Empty before the first one.
RELEASE := $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)

.PHONY: help setup demo run test lint gen fuzz faults hostile bench lock audit sbom clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## make .venv from the pinned requirements, with .venv/bin/ingestor in it

demo: setup ## start it, send a load over both protocols, show what was stored; ARGS= are passed on
	$(BIN)/ingestor demo $(ARGS)

run: setup ## serve on the embedded database (INGESTOR_* settings apply); ARGS= are passed on
	@exec $(BIN)/ingestor serve $(ARGS)

test: lint ## lint, then all tests; ARGS= are passed to pytest
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

lint: setup ## formatting, types, the import law, the proto, and what is generated against its source
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/lint_proto.py $(if $(RELEASE),--against $(RELEASE))
	$(BIN)/python scripts/gen.py --check
	$(BIN)/python scripts/metrics_page.py --check

gen: setup ## write gen/ from proto/, METRICS.md from the declared metrics
	$(BIN)/python scripts/gen.py
	$(BIN)/python scripts/metrics_page.py

# Two million requests to a server over both protocols, eight to the decoders alone.
fuzz: setup ## 10 million hostile requests, some 45 minutes; FUZZ_REQUESTS=, FUZZ_DECODER_CASES= and FUZZ_SEED= are heeded
	FUZZ_REQUESTS=$${FUZZ_REQUESTS:-2000000} FUZZ_DECODER_CASES=$${FUZZ_DECODER_CASES:-8000000} \
	  $(BIN)/python -m pytest tests/fuzz -s $(ARGS)
	FUZZ_CASES=$${FUZZ_CASES:-500000} API_FUZZ_CASES=$${API_FUZZ_CASES:-1000} \
	  $(BIN)/python -m pytest tests/columns/test_fuzz.py tests/transport/openapi/test_api.py -s $(ARGS)
	HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest -m hypothesis $(ARGS)

faults: setup ## break everything around a server under load, for long; FAULT_ROUNDS= and FAULT_SEED= are heeded
	FAULT_ROUNDS=$${FAULT_ROUNDS:-20} $(BIN)/python -m pytest tests/fault tests/journal/test_log_model.py $(ARGS)

hostile: setup ## attack a server as hard as is known of each attack; prints another client's p99 and the server's memory
	HOSTILE_FULL=1 $(BIN)/python -m pytest tests/hostile -s $(ARGS)

bench: setup ## measure unary and bulk ingest on the embedded database; prints, asserts nothing
	$(BIN)/python scripts/bench.py $(ARGS)

lock: setup ## pin the newest allowed requirements again, with hashes; for the container, the same less what is for developers
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade --extra dev --output-file requirements.txt pyproject.toml
	$(LOCK) --constraint requirements.txt --output-file deploy/requirements.txt pyproject.toml
	$(LOCK) --constraint requirements.txt --group build --output-file deploy/requirements-build.txt
	$(LOCK) --upgrade --group audit --output-file deploy/requirements-audit.txt

audit: $(TOOLS) ## ask PyPI's advisories about every pinned requirement; needs the network
	@$(TOOLS_BIN)/python scripts/audit.py $(ARGS)

sbom: $(TOOLS) ## write dist/sbom.json: what the container's environment is made of (CycloneDX)
	@mkdir -p dist
	PYTHONWARNINGS=ignore $(TOOLS_BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
	  --output-file dist/sbom.json deploy/requirements.txt
	@echo "dist/sbom.json: $$(grep -c '"purl"' dist/sbom.json) packages"

# Apart from .venv, which is for tests and need not carry them.
$(TOOLS): deploy/requirements-audit.txt
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

clean: ## remove .venv and what tools leave
	rm -rf $(VENV) $(TOOLS_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
