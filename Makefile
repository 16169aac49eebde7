# Everything a person types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
SOURCES := shared cli node services tests bench

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: check
check: ## ruff format and lint, mypy strict, import contracts
	./dev ruff format --check --quiet $(SOURCES)
	./dev ruff check --quiet $(SOURCES)
	./dev mypy --no-error-summary $(SOURCES)
	./dev lint-imports --no-cache >/dev/null || ./dev lint-imports --no-cache

.PHONY: format
format: ## let ruff rewrite what it can
	./dev ruff check --fix --quiet $(SOURCES)
	./dev ruff format --quiet $(SOURCES)

.PHONY: lock
lock: ## pin all dependencies again (needs uv)
	./scripts/lock.sh
