# Works with GNU make 3.81, which macOS ships. Tools are called as `python -m`, because the scripts in .venv/bin name
# their interpreter in a #! line that does not survive every character a folder may have in its name. .venv/bin/dvc is
# ours (.ci/dvc) and does.

ARGS ?=
COOLDOWN ?= 3 days
# What an earlier `make setup` was told still counts: `make test` must not swap a GPU build for the default one.
ifeq ($(origin TORCH), undefined)
TORCH := $(shell cat .venv/.torch 2>/dev/null)
endif
# Through the environment, so that quotes in a value stay quotes.
export GIVEN_TORCH := $(TORCH)
export USED_TORCH := $(or $(TORCH),torch==2.13.0)
export GIVEN_PYTHON := $(PYTHON)
export USED_PYTHON := $(or $(PYTHON),python3)

SHELL := /bin/sh
# In a C locale Python and DVC cannot encode the name of a folder such as "ünï".
export PYTHONUTF8 := 1
RUN := .venv/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check --no-input
# Another place (scripts hold absolute paths), torch or lock makes another environment.
PACKAGES = printf '%s\n' "$$(pwd -P)" "$$USED_TORCH" "$$(cksum < requirements.lock)"
VERSION = -c 'import sys; print(*sys.version_info[:2], sep=".")'

.PHONY: help setup packages library check repro verify report test test-fast test-shipped test-slow test-gpu lint format hooks lock build \
  clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@printf '\n'; printf '  %s\n' "PYTHON=$$USED_PYTHON    Python 3.11, 3.12 or 3.13 that makes .venv" \
	  "TORCH=\"$$USED_TORCH\"    what pip installs as torch, also with options, say for a GPU build:" \
	  '    TORCH="torch==2.13.0 --index-url URL"    kept until TORCH= is given' \
	  'ARGS="..."    more arguments for `dvc repro` or `pytest`'

setup: ## Make .venv with the locked packages; does nothing when it is ready
	@mkdir -p .dvc/tmp && chmod 700 .dvc/tmp
	@{ [ -x .venv/bin/python ] && [ "$$(cat .venv/.packages 2>/dev/null)" = "$$($(PACKAGES))" ] && \
	  { [ -z "$$GIVEN_PYTHON" ] || [ "$$("$$USED_PYTHON" $(VERSION))" = "$$(.venv/bin/python $(VERSION))" ]; }; } || \
	  $(MAKE) --no-print-directory packages
	@[ "$$(cat .venv/.library 2>/dev/null)" = "$$(cat pyproject.toml Makefile | cksum)" ] || \
	  $(MAKE) --no-print-directory library

packages:
	@command -v "$$USED_PYTHON" >/dev/null || { \
	  echo "error: there is no $$USED_PYTHON here; name a Python 3.11, 3.12 or 3.13: make setup PYTHON=..." >&2; exit 2; }
	@"$$USED_PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: $$USED_PYTHON is Python $$("$$USED_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])');" \
	    "3.11, 3.12 or 3.13 is needed, name another: make setup PYTHON=..." >&2; exit 2; }
	@"$$USED_PYTHON" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $$USED_PYTHON cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 2; }
# The stamps go first and come last, so that half an environment is never taken for a whole one.
	@rm -f .venv/.packages .venv/.library
	"$$USED_PYTHON" -m venv --clear .venv
	@[ -z "$$GIVEN_TORCH" ] || printf '%s\n' "$$GIVEN_TORCH" > .venv/.torch
# One package has no wheel. pip would build it with a setuptools of its own choice; so the locked one comes first.
	@awk '/^[a-z]/ { keep = /^setuptools==/ } keep' requirements.lock > .venv/build.lock
	@awk '/^[a-z]/ { sub(/ *\\$$/, ""); print }' requirements.lock > .venv/constraints.txt
	$(PIP) install --quiet --require-hashes --no-deps -r .venv/build.lock
# torch is not in the lock: which build is right depends on the machine.
	$(PIP) install --constraint .venv/constraints.txt $(USED_TORCH)
# Extras are installed with these constraints later, and must not move torch either.
	@.venv/bin/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> .venv/constraints.txt
	$(PIP) install --quiet --require-hashes --no-deps --no-build-isolation -r requirements.lock
	@$(PACKAGES) > .venv/.packages

library:
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@ln -sf ../../.ci/dvc .venv/bin/dvc
# DVC would keep its index, which is pickles, in a folder in which every user of the machine may write; .dvc/tmp is closed.
# DVC can write a path into its configuration only if it is ASCII and holds no %.
	@LC_ALL=C; case "$$(pwd -P)" in \
	  *[!\ -~]*|*%*) echo "note: $$(pwd -P) is not plain ASCII, so DVC keeps its index where other users may write;" \
	    "before you type dvc: export DVC_SITE_CACHE_DIR=\"\$$PWD/.dvc/tmp/site\"" >&2 ;; \
	  *) $(RUN) dvc config --quiet --local core.site_cache_dir "$$(pwd -P)/.dvc/tmp/site" ;; esac
	@cat pyproject.toml Makefile | cksum > .venv/.library
	@echo 'ready: .venv'

check: setup ## Check params.yaml, dvc.yaml and the environment, in seconds
	@$(RUN) codex_ml check

repro: check ## Run what is not up to date of the pipeline (ARGS="train" for one stage and what it needs)
	.venv/bin/dvc repro $(ARGS)

verify: setup ## Prove that every result belongs to the recorded data, parameters and code
	@$(RUN) codex_ml verify

report: ## Say where the report lies
	@[ -f reports/report/index.html ] || { echo "error: no report yet; run make repro" >&2; exit 1; }
	@echo reports/report/index.html

test: setup ## Run all tests of the code but the slow ones, in random order, and measure coverage
	$(RUN) pytest -m "not slow and not gpu and not shipped" --numprocesses 2 --dist worksteal --cov --cov-report=term-missing:skip-covered --durations=10 $(ARGS)

test-fast: setup ## Run the tests of the code that run before a push: in two minutes on two cores
	$(RUN) pytest -m "not slow and not gpu and not shipped and not pipeline and not costly" --quiet --numprocesses 2 \
	  --dist worksteal $(ARGS)

test-shipped: setup ## Compare README, docs, policy and sample run with each other, as this repository ships them
	$(RUN) pytest -m "shipped and not slow" --quiet $(ARGS)

test-slow: setup ## Run the slow tests
	$(RUN) pytest -m slow --durations=10 $(ARGS)

test-gpu: setup ## Run the tests that need a CUDA GPU (make setup TORCH=... names its torch)
	$(RUN) pytest -m gpu --durations=10 $(ARGS)

lint: setup ## Check style, types and who imports whom
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) pytest --quiet tests/test_imports.py

format: setup ## Rewrite the code in the common style
	$(RUN) ruff check --fix
	$(RUN) ruff format

hooks: setup ## Let Git check every commit, merge and push
	@folder="$$(git rev-parse --show-prefix 2>/dev/null)"; config="$$(git rev-parse --show-cdup 2>/dev/null).pre-commit-config.yaml"; \
	  [ -z "$$folder" ] || grep -qsF .ci/hook "$$config" || { \
	  echo "error: the Git repository begins above this folder, and its hooks are set in $$config;" \
	    "write it with \`$(RUN) codex_ml hook config > $$config\` (if it exists, add the hooks that are printed)" >&2; exit 2; }
	$(RUN) pre_commit install --hook-type pre-commit --hook-type pre-merge-commit --hook-type pre-push

# A release gets COOLDOWN to be found out before we take it. Versions stay as they are: ARGS=--upgrade moves them.
# uv names the GPU packages of torch, which come with it; nvidia-ml-py is none, it reads the GPU's memory use.
lock: setup ## Write requirements.lock anew (ARGS=--upgrade for newer versions)
	@mkdir -p .cache && cp requirements.lock .cache/requirements.lock
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --exclude-newer "$(COOLDOWN)" \
	  --extra dev --generate-hashes --no-header --output-file .cache/requirements.lock $(ARGS) pyproject.toml
	@{ echo '# Written by `make lock` from pyproject.toml, for Python 3.11 to 3.13 on Linux and macOS; all but torch.'; \
	  awk '/^[a-z]/ { keep = /^nvidia-ml-py==/ || !/^(torch|triton|cuda-[^=]*|nvidia-[^=]*)==/ } keep' \
	  .cache/requirements.lock; } > .cache/filtered.lock
	@mv .cache/filtered.lock requirements.lock

build: setup ## Build the wheel of the library into dist/
	$(RUN) hatchling build -t wheel

clean: ## Remove what tools leave behind; data, models and .venv stay
	rm -rf dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src stages tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too
	rm -rf .venv
