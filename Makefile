# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Everything else follows from them.
UV := scripts/uv
RUN := $(UV) run --frozen --all-extras
SHELL_SCRIPTS := .ci/run scripts/kind scripts/uv manifests/components/redis/users.sh

.DEFAULT_GOAL := help
.PHONY: help demo test chaos soak lint types bench bench-client bench-scale format clean bench-page pictures e2e dashboards kind-up kind-demo kind-down

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## apply a breaker and watch it open and recover, on an embedded control plane; HOLD=1 keeps it running
	@$(RUN) python -m circuitbreaker_local.demo $(if $(filter-out 0 false no,$(HOLD)),--hold)

test: ## every test that needs no image; ARGS="-k name" selects
	$(RUN) pytest $(ARGS)

e2e: ## an installation's life on a real node with pods, without Docker (Linux, root); ARGS="-k name"
	@$(RUN) python -m circuitbreaker_local.node $(CURDIR)/.venv/bin/python -m pytest -x tests/e2e $(ARGS)

kind-up: ## with Docker: a cluster of kind with the operator and a Redis; again: what was changed rolls out
	@scripts/kind up

kind-demo: ## with Docker: the same, a sample application of three replicas, and what to try
	@scripts/kind demo

kind-down: ## with Docker: takes the cluster away
	@scripts/kind down

chaos: ## every fault against everything, about 10 minutes; writes the table in docs/reliability.md; ARGS="-k Redis"
	CB_CHAOS=full $(RUN) pytest tests/chaos $(ARGS)

soak: ## two hours of mixed load with random faults; memory, tasks, descriptors; ARGS="--minutes 5 --seed 7" for less
	@$(RUN) python -m tests.soak $(ARGS)

lint: ## ruff: rules and format; shellcheck
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) shellcheck $(SHELL_SCRIPTS)

types: ## mypy --strict on the packages; mypy and pyright on the client's public types
	$(RUN) mypy
	$(RUN) mypy tests/typing/client.py scripts
	$(RUN) pyright

bench: ## figures: the functions beside HINCRBY, reflect lag, clock lag, 1,000 breakers until Ready
	@$(RUN) python -m tests.bench

bench-client: ## figures: the Python client beside other breakers; ARGS="--plot client.png --long"
	@$(RUN) --group bench python -m tests.bench.client $(ARGS)

bench-scale: ## figures: 10,000 breakers; ARGS="--breakers 1000 --steady-minutes 1" for less
	@$(RUN) python -m tests.bench.scale $(ARGS)

bench-page: ## figures: the page with 10,000 breakers in a real Chromium; ARGS="--breakers 1000" for less
	@$(RUN) python -m tests.bench.page $(ARGS)

pictures: ## the README's pictures, taken anew from the demo
	@$(RUN) python scripts/pictures.py

dashboards: ## write the Grafana dashboards anew, from scripts/dashboards.py
	$(RUN) python scripts/dashboards.py

format: ## put the code into the project's format
	$(RUN) ruff format
	$(RUN) ruff check --fix

clean: ## remove what tools left in the checkout (the cache of built binaries stays)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
