# What 'make' alone prints is taken from the '##' beside each target.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PAGE := browser_harness/page
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DEMO := build/demo

export HF_HUB_OFFLINE := 1

# Each of these files is made by the step it stands for, or touched after it.
PYTHON_READY := $(VENV)/.installed
BROWSER_READY := $(VENV)/.browser
NODE_READY := $(PAGE)/node_modules/.package-lock.json
PEERS := tests/bench/peers
PEERS_READY := $(PEERS)/node_modules/.package-lock.json
STUDY := tests/bench/study/texts
STUDY_READY := $(STUDY)/node_modules/.package-lock.json
PAGE_READY := $(PAGE)/dist/.built
PAGE_SOURCES := $(shell find $(PAGE) \( -name node_modules -o -name dist \) -prune -o -type f -print)

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(PYTHON_READY) $(PAGE_READY) $(BROWSER_READY) ## install everything into .venv and node_modules, build the page

.PHONY: demo
demo: setup ## export a real model, run it in Chromium, judge it: build/demo
	checkpoint=$$($(BIN)/tabwright demo) && \
	$(BIN)/tabwright run "$$checkpoint" --target webgpu-q4 --target wasm-q4 \
	  --budget browser_harness/judge/example.toml -o $(DEMO) --force

.PHONY: test test-python test-page
test: test-python test-page ## every test, real Chromium included
test-python: setup $(PEERS_READY)
	$(BIN)/pytest
test-page: setup
	npm --prefix $(PAGE) test

.PHONY: fuzz
fuzz: SECONDS ?= 600
fuzz: $(PYTHON_READY) ## hostile checkpoints for SECONDS=600; what should not have happened: build/fuzz
	$(BIN)/python -m tests.attacks.fuzz --seconds $(SECONDS)

.PHONY: bench
bench: ROUNDS ?= 4
bench: setup $(PEERS_READY) ## every runtime in one run of ROUNDS=4, greedy tokens, cost of the export: docs/benchmarks.md
	$(BIN)/python -m tests.bench.contest --rounds $(ROUNDS) --samples build/bench/contest.json
	$(BIN)/python -m tests.bench.greedy
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.export

.PHONY: gate-power
gate-power: setup ## false alarms and misses of the gate, two and a half hours: docs/measuring.md
	$(BIN)/python -m tests.bench.gate_power collect build/gate-power
	$(BIN)/python -m tests.bench.gate_power judge build/gate-power

.PHONY: endurance
endurance: RUNS ?= 100
endurance: setup ## RUNS=100 of the harness in a row, faulty ones too, and what is left: docs/measuring.md
	$(BIN)/python -m tests.bench.endurance --runs $(RUNS)

.PHONY: harness-cost
harness-cost: setup ## decode under the harness against the bare runtime loop: docs/measuring.md
	test -e $(DEMO)/bundle/manifest.json || $(MAKE) demo
	$(BIN)/python -m tests.bench.harness_cost $(DEMO)/bundle

.PHONY: study
study: setup $(STUDY_READY) ## every method on two models, hours of it, kept in build/study: docs/study.md
	$(BIN)/python -m tests.bench.study

.PHONY: lint
lint: setup ## every linter and type checker, and the generated files against their source
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m manifests.generate --check
	npm --prefix $(PAGE) run typecheck

.PHONY: wheel
wheel: setup ## the package with the page in it: build/wheels
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheels .

.PHONY: clean
clean: ## remove what was built and installed
	rm -rf build $(VENV) $(PAGE)/node_modules $(PAGE)/dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(PYTHON_READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: name one with make PYTHON=...' >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[compress,eval,genai,dev]'
	touch $@

# Vite's own message for an older Node is a syntax error.
.PHONY: check-node
check-node:
	@node -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b < 2019 ? 1 : 0)' \
	  2>/dev/null || { echo "Node.js 20.19 or newer, with npm, is needed; found:" \
	  "$$(node --version 2>/dev/null || echo none)" >&2; exit 1; }

$(NODE_READY): $(PAGE)/package.json $(PAGE)/package-lock.json | check-node
	npm ci --prefix $(PAGE) --no-audit --no-fund --loglevel=error
	touch $@

$(PEERS_READY): $(PEERS)/package.json $(PEERS)/package-lock.json | check-node
	npm ci --prefix $(PEERS) --no-audit --no-fund --loglevel=error
	touch $@

$(STUDY_READY): $(STUDY)/package.json $(STUDY)/package-lock.json | check-node
	npm ci --prefix $(STUDY) --no-audit --no-fund --loglevel=error
	touch $@

$(PAGE_READY): $(NODE_READY) $(PAGE_SOURCES)
	npm --prefix $(PAGE) run build
	touch $@

$(BROWSER_READY): $(PYTHON_READY) .ci/browser
	.ci/browser $(BIN)
	touch $@
