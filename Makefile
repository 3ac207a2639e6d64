# Short names for what .ci/run does, in the environment that `make setup` creates. Type `make` for the list.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup format lint types imports quick test docs servers sandbox ci

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## create .venv and install mcpgate with everything that development needs
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -U pip
	$(BIN)/pip install -q -c requirements.lock -e ".[dev]"

format: ## format all Python files
	$(BIN)/ruff format .

lint: ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: ## check types
	$(BIN)/mypy

imports: ## check that imports point down and form no cycles
	$(BIN)/lint-imports

quick: ## run the tests that start no process, no sandbox and no database server
	$(BIN)/python -m pytest -m quick

test: ## run all tests
	$(BIN)/python -m pytest

docs: ## build the documentation site into site/
	$(BIN)/mkdocs build --strict

servers: ## install the real MCP servers that some tests and benchmarks use (needs Node)
	$(BIN)/python -m benchmarks.servers install reference ten

sandbox: ## rebuild the sandbox component after a change below sandbox/mcpgate_sandbox/guest
	$(BIN)/pip install -q componentize-py==0.25.1 tzdata
	$(BIN)/mcpgate sandbox build

ci: ## run everything that CI runs, in a fresh environment
	.ci/run
