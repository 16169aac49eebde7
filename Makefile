# Everything a person types. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
SOURCES := shared git vote cli node services tests bench scripts
MACHINE := ./scripts/machine.sh
unexport PYTHONDONTWRITEBYTECODE # compiling all tests again takes each worker seven seconds

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: demo
demo: ## the main job on real input, from nothing: a node, two tools, three runs of two steps (KEEP=1 leaves it running)
	@$(MACHINE) venv engine etcd
	@./scripts/demo.sh

.PHONY: node
node: ## run a node in the foreground; Ctrl-C stops all of it
	@$(MACHINE) venv engine etcd
	@exec ./dev python -m mao_node

.PHONY: up
up: ## the same with compose, in the background
	@./scripts/compose.sh up

.PHONY: down
down: ## stop the compose node; its data stay in the volumes
	@./scripts/compose.sh down

.PHONY: test-fast
test-fast: WORKERS ?= $(shell echo $$(($$(nproc) + 1)))
test-fast: ## the tests that need nothing but Python and git; in two to three minutes from a fresh clone
	@$(MACHINE) venv
	./dev pytest -n $(WORKERS) -m fast

.PHONY: test
test: WORKERS ?= $(shell echo $$(($$(nproc) + 3))) # these tests wait for more than half of their time
test: ## all tests but the compose one, with real etcd, Docker, git and sshd (WORKERS=0: in one process)
	@$(MACHINE) venv engine etcd git-ssh git-lfs browser axe promtool evidence-tools tool-images >/dev/null
	./dev pytest -n $(WORKERS) -m "not compose" --durations=10

.PHONY: test-compose
test-compose: ## the main job against a compose node with real containers
	@$(MACHINE) venv engine compose browser axe tool-images >/dev/null
	./dev pytest -m compose --timeout 1200

.PHONY: check
check: ## ruff format and lint, mypy strict, import contracts
	@$(MACHINE) venv
	./dev ruff format --check --quiet $(SOURCES)
	./dev ruff check --quiet $(SOURCES)
	./dev mypy --no-error-summary $(SOURCES)
	./dev lint-imports --no-cache >/dev/null || ./dev lint-imports --no-cache

.PHONY: bench
bench: ## speed, memory and accuracy beside what they are compared to
	@$(MACHINE) venv engine etcd git-lfs tool-images >/dev/null
	./dev python -m bench

.PHONY: docs
docs: ## the documentation as a site in var/docs/site, with the reference generated from the code
	@$(MACHINE) venv
	./dev python scripts/docs_site.py var/docs

.PHONY: format
format: ## let ruff rewrite what it can
	./dev ruff check --fix --quiet $(SOURCES)
	./dev ruff format --quiet $(SOURCES)

.PHONY: lock
lock: ## pin all dependencies again (needs uv)
	./scripts/lock.sh

.PHONY: clean
clean: ## remove what building and running left here and on the engine, but for nodes' data and keys (DATA=1: those too)
	@[ ! -e var/node/node.lock ] || flock -n var/node/node.lock true || { echo "A node runs from var/node: stop it first." >&2; exit 1; }
	-@[ ! -x .venv/bin/python ] || ./dev python -m mao_runner --remove-tool-network
	-$(MACHINE) engine-stop
	@if [ -d var ]; then find var -mindepth 1 -maxdepth 1 $(if $(DATA),,! -name node ! -name ssh ! -name tokens ! -name join) -exec rm -rf {} +; fi
	@rmdir var 2>/dev/null || [ ! -d var ] || echo "var keeps data and keys of nodes; make clean DATA=1 removes them." >&2
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
