# Works with GNU make 3.81, which macOS ships. Tools run as `python -m`, because the scripts in .venv/bin name their
# interpreter in a #! line, and some folder names break it. .venv/bin/dvc is our own script (.ci/dvc) without this problem.

ARGS ?=
COOLDOWN ?= 3 days
# The TORCH of an earlier `make setup` still applies: `make test` must not replace a GPU build by the default one.
ifeq ($(origin TORCH), undefined)
TORCH := $(shell cat .venv/.torch 2>/dev/null)
endif
# Pass these through the environment, so that the shell does not interpret quotes in a value.
export GIVEN_TORCH := $(TORCH)
export GIVEN_PYTHON := $(PYTHON)
export USED_PYTHON := $(or $(PYTHON),python3)

SHELL := /bin/sh
# In a C locale Python and DVC cannot encode the name of a folder such as "ünï".
export PYTHONUTF8 := 1
RUN := .venv/bin/python -P -m
PIP := $(RUN) pip --disable-pip-version-check --no-input
# .venv is built again if one of these changes: its path (scripts hold absolute paths), TORCH, the locks.
PACKAGES = printf '%s\n' "$$(pwd -P)" "$$GIVEN_TORCH" "$$(cat requirements.lock torch.lock .ci/install | cksum)"
VERSION = -c 'import sys; print(*sys.version_info[:2], sep=".")'

.PHONY: help setup packages library check repro verify report test coverage test-fast test-shipped test-slow fuzz test-gpu lint format hooks lock build \
  clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\n'; printf '  %s\n' "PYTHON=$$USED_PYTHON    the Python 3.11, 3.12 or 3.13 that makes .venv" \
	  'TORCH="..."    another torch than that of torch.lock, as pip installs it, with options of pip:' \
	  '    TORCH="torch==2.13.0 --index-url URL"    kept until you give another TORCH=' \
	  'ARGS="..."    more arguments for `dvc repro` or `pytest`'

setup: ## Make .venv with the locked packages; does nothing if it is complete
	@mkdir -p .dvc/tmp && chmod 700 .dvc/tmp
	@{ [ -x .venv/bin/python ] && [ "$$(cat .venv/.packages 2>/dev/null)" = "$$($(PACKAGES))" ] && \
	  { [ -z "$$GIVEN_PYTHON" ] || [ "$$("$$USED_PYTHON" $(VERSION))" = "$$(.venv/bin/python $(VERSION))" ]; }; } || \
	  $(MAKE) --no-print-directory packages
	@[ "$$(cat .venv/.library 2>/dev/null)" = "$$(cat pyproject.toml Makefile | cksum)" ] || \
	  $(MAKE) --no-print-directory library

packages:
	@command -v "$$USED_PYTHON" >/dev/null || { \
	  echo "error: $$USED_PYTHON was not found; name a Python 3.11, 3.12 or 3.13: make setup PYTHON=..." >&2; exit 2; }
	@"$$USED_PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: $$USED_PYTHON is Python $$("$$USED_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])');" \
	    "3.11, 3.12 or 3.13 is needed; name another one: make setup PYTHON=..." >&2; exit 2; }
	@"$$USED_PYTHON" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $$USED_PYTHON cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 2; }
# The stamps are removed first and written last, so that an incomplete environment never counts as complete.
	@rm -f .venv/.packages .venv/.library
	"$$USED_PYTHON" -m venv --clear .venv
	@[ -z "$$GIVEN_TORCH" ] || printf '%s\n' "$$GIVEN_TORCH" > .venv/.torch
	TORCH="$$GIVEN_TORCH" sh .ci/install .venv
	@PYTHONPATH=src $(RUN) codex_ml packages
	@$(PACKAGES) > .venv/.packages

library:
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@ln -sf ../../.ci/dvc .venv/bin/dvc
# By default DVC keeps its index, which is pickles, in a folder that every user of the machine may write to. .dvc/tmp is
# private. DVC can store a path in its configuration only if it is ASCII and has no %.
	@LC_ALL=C; case "$$(pwd -P)" in \
	  *[!\ -~]*|*%*) echo "note: $$(pwd -P) is not plain ASCII, so DVC keeps its index where other users may write;" \
	    "before you type dvc: export DVC_SITE_CACHE_DIR=\"\$$PWD/.dvc/tmp/site\"" >&2 ;; \
	  *) $(RUN) dvc config --quiet --local core.site_cache_dir "$$(pwd -P)/.dvc/tmp/site" ;; esac
	@cat pyproject.toml Makefile | cksum > .venv/.library
	@echo 'ready: .venv'

check: setup ## Check params.yaml, dvc.yaml and the environment, in seconds
	@$(RUN) codex_ml check

repro: check ## Run the stages that are not up to date (ARGS="train": one stage and the stages before it)
	.venv/bin/dvc repro $(ARGS)

verify: setup ## Prove that every result belongs to the recorded data, parameters and code
	@$(RUN) codex_ml verify

report: ## Print the path of the report
	@[ -f reports/report/index.html ] || { echo "error: there is no report yet; run make repro" >&2; exit 1; }
	@echo reports/report/index.html

test: setup ## Run all tests of the code except the slow ones, in random order
	$(RUN) pytest -m "not slow and not gpu and not shipped" --numprocesses 2 --dist worksteal --durations=10 $(ARGS)

coverage: ## Run the same tests, and fail if they reach less than 90 % of the code; takes a third longer
	$(MAKE) test ARGS="--cov --cov-report=term-missing:skip-covered $(ARGS)"

test-fast: setup ## Run the tests that run before a push: two minutes on two cores
	$(RUN) pytest -m "not slow and not gpu and not shipped and not pipeline and not costly" --quiet --numprocesses 2 \
	  --dist worksteal $(ARGS)

test-shipped: setup ## Compare README, params.yaml, policy and the committed run of this repository with each other
	$(RUN) pytest -m "shipped and not slow" --quiet $(ARGS)

test-slow: setup ## Run the slow tests
	$(RUN) pytest -m slow --durations=10 $(ARGS)

fuzz: setup ## Read mutated files for MINUTES=5 (SEED=N repeats a run); faults go to .cache/fuzz
	.venv/bin/python tests/fuzz --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(ARGS)

test-gpu: setup ## Run the tests that need a CUDA GPU (first: make setup TORCH=...)
	$(RUN) pytest -m gpu --durations=10 $(ARGS)

lint: setup ## Check style, types and imports between packages
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) pytest --quiet tests/test_imports.py

format: setup ## Rewrite the code in the common style
	$(RUN) ruff check --fix
	$(RUN) ruff format

hooks: setup ## Install Git hooks that check every commit, merge and push
	@folder="$$(git rev-parse --show-prefix 2>/dev/null)"; config="$$(git rev-parse --show-cdup 2>/dev/null).pre-commit-config.yaml"; \
	  [ -z "$$folder" ] || grep -qsF .ci/hook "$$config" || { \
	  echo "error: this folder is inside a larger Git repository, whose hooks are in $$config;" \
	    "write that file with \`$(RUN) codex_ml hook config > $$config\` (if it exists, add the hooks that are printed)" >&2; exit 2; }
	$(RUN) pre_commit install --hook-type pre-commit --hook-type pre-merge-commit --hook-type pre-push

# A release must be COOLDOWN old, so that others can find a malicious one first. Versions stay; ARGS=--upgrade raises them.
# torch and its GPU packages are in torch.lock. nvidia-ml-py is not one of them: it reads the memory use of a GPU.
OF_TORCH := ^(torch|triton|cuda-[^=]*|nvidia-[^=]*)==
lock: setup ## Write requirements.lock and torch.lock again (ARGS=--upgrade for newer versions)
	@mkdir -p .cache && cp requirements.lock .cache/requirements.lock
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --exclude-newer "$(COOLDOWN)" \
	  --extra dev --generate-hashes --no-header --output-file .cache/requirements.lock $(ARGS) pyproject.toml
	@{ echo '# Written by `make lock` from pyproject.toml, for Python 3.11 to 3.13 on Linux and macOS; all but torch.'; \
	  awk '/^[a-z]/ { keep = /^nvidia-ml-py==/ || !/$(OF_TORCH)/ } keep' \
	  .cache/requirements.lock; } > .cache/filtered.lock
	@mv .cache/filtered.lock requirements.lock
	@awk '/^torch==[^+ ]* / { print $$1 }' torch.lock | $(RUN) uv pip compile --quiet --universal --python-version 3.11 \
	  --fork-strategy fewest --exclude-newer "$(COOLDOWN)" --generate-hashes --no-header --constraint requirements.lock \
	  --output-file .cache/torch.lock -
	@{ sed -n '/^#/p; /^torch==.*+/,/[^\\]$$/p' torch.lock; awk '/^[a-z]/ { keep = /$(OF_TORCH)/ && !/^nvidia-ml-py==/ } keep' \
	  .cache/torch.lock; } > .cache/filtered.lock
	@mv .cache/filtered.lock torch.lock

build: setup ## Build the wheel of the library into dist/
	$(RUN) hatchling build -t wheel

clean: ## Remove caches and build folders; data, models and .venv stay
	rm -rf dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src stages tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Also remove .venv
	rm -rf .venv
