# Two commands do everything on a fresh machine: `make up` and `make test`.
VENV ?= .venv
SCENARIO ?= scenarios/mixed.yaml
COVERED ?= 90
BIN := $(VENV)/bin
READY := $(VENV)/.anyserve-ready
TRIED = /tmp/anyserve-vllm-$(VERSION)

.PHONY: up test check quick coverage try-vllm format clean

up: $(READY)  ## set up, then run the main job: real engines, real traffic, a report
	$(BIN)/anyserve up $(SCENARIO)

test: check  ## set up, then pass all tests that this machine can run
	$(BIN)/python -m pytest -m "e2e or gpu or not e2e"

check: $(READY)  ## style, types, import rules, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

quick: $(READY)  ## the tests without real engines
	$(BIN)/python -m pytest

coverage: $(READY)  ## what unit tests reach in core and workload; fails below 90 % with branches
	$(BIN)/coverage run -m pytest -q tests/unit/core tests/unit/workload
	$(BIN)/coverage report --include='anyserve/core/*' --fail-under=$(COVERED)
	$(BIN)/coverage report --include='anyserve/workload/*' --fail-under=$(COVERED)

try-vllm:  ## VERSION=0.28.0: the end-to-end tests, and whose decisions differ, on that vLLM
	VLLM=$(VERSION) VENV=$(TRIED) setup/install.sh
	$(TRIED)/bin/python -m pytest -m "e2e or gpu" tests/e2e tests/gpu
	-$(TRIED)/bin/python benchmarks/conformance.py --traces 1000

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml $(wildcard setup/*)
	VENV=$(VENV) setup/install.sh

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
