# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Everything else follows from them.
UV := scripts/uv
RUN := $(UV) run --frozen --all-extras
SHELL_SCRIPTS := .ci/run scripts/kind scripts/uv manifests/components/redis/users.sh

# What is imported is compiled once, and not by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

# Tests wait more than they work, so the whole of them runs two at once; a selection (ARGS) runs in one process.
JOBS ?= $(if $(ARGS),0,2)

.DEFAULT_GOAL := help
.PHONY: help demo binaries test chaos soak lint types bench bench-client bench-scale format clean bench-page pictures e2e dashboards docs reference lock version dist release release-check kind-up kind-demo kind-down

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## apply a breaker and watch it open and recover, on an embedded control plane; HOLD=1 keeps it running
	@$(RUN) python -m circuitbreaker_local.demo $(if $(filter-out 0 false no,$(HOLD)),--hold)

binaries: ## what demo and tests run on, found or built once into the cache; NODE=1: what `make e2e` runs on as well
	@$(RUN) python -m circuitbreaker_local binaries $(if $(filter-out 0 false no,$(NODE)),--node)

test: ## every test that needs no image; ARGS="-k name" selects, JOBS=1 runs one at a time
	@$(if $(filter-out 0,$(JOBS)),$(RUN) python -m circuitbreaker_local binaries)
	$(RUN) pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

e2e: ## an installation's life on a real node with pods, without Docker (Linux, root); ARGS="-k name"
	@$(RUN) python -m circuitbreaker_local.node python -m pytest -x tests/e2e $(ARGS)

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
	$(RUN) python -m scripts.dashboards

lock: ## solve dependencies anew; writes uv.lock and build-requirements.txt; ARGS="--upgrade" for newer ones
	$(UV) lock $(ARGS)
	@{ echo "# \`make lock\` writes this from uv.lock: what makes the wheel and the image, as pip --require-hashes reads it."; \
	   $(UV) export --quiet --frozen --only-group build --no-emit-project --no-annotate --no-header; } > build-requirements.txt

version: ## the version; V=0.2.0 sets it in every file that says it
	@$(RUN) python -m scripts.version $(V)

DIST := dist
dist: ## the wheel and the sdist, in dist/: from the same commit the same bytes
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(UV) build --clear --out-dir $(DIST) \
		--build-constraints build-requirements.txt --require-hashes
	@cd $(DIST) && sha256sum *.whl *.tar.gz

release: ## the files of a release: V=0.2.0 everywhere, and what is unreleased is of it; docs/release.md has all steps
	@$(RUN) python -m scripts.changelog $(or $(V),$(error make release V=0.2.0))
	@$(RUN) python -m scripts.version $(V)

release-check: ## what must hold of a commit that is tagged: nothing beside it, version, changelog, locks, wheel and sdist
	@test -z "$$(git status --porcelain)" || { git status --short; echo "the checkout is not what is committed" >&2; exit 1; }
	$(UV) lock --check
	$(RUN) python -m scripts.version
	$(RUN) python -m scripts.changelog --released
	$(RUN) pytest -q tests/distribution tests/unit/test_version.py tests/unit/test_changelog.py tests/unit/test_image.py

docs: ## build the site into site/, with every link and anchor checked; open site/index.html
	@$(RUN) sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . site

reference: ## write docs/reference/ anew, from the resource, the settings and the metrics
	@$(RUN) python -m scripts.reference

format: ## put the code into the project's format
	$(RUN) ruff format
	$(RUN) ruff check --fix

clean: ## remove what tools left in the checkout (the cache of built binaries stays)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site
