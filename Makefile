# Everything a newcomer needs: `make demo` and `make test`. Every install step of the project is in this file.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup system node postgresql demo test test-all lint proto proto-base catalogue sets nulls bench sandbox-report sandbox-matrix soak failure-matrix clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CACHE ?= var/cache
FAULTS ?= 5
SEED ?= 1
STORE ?= sqlite
STORES ?= sqlite postgresql
ROWS ?=

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Debian packages, each named by the command that shows it is there. As another user than root: says what to install.
system:
	@missing=()
	for pair in bwrap:bubblewrap redis-server:redis-server openssl:openssl setpriv:util-linux \
	    chromium:chromium chromium:fonts-liberation pdftotext:poppler-utils; do
	  command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}")
	done
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
	if [ $${#missing[@]} -gt 0 ]; then
	  if [ "$$(id -u)" != 0 ]; then echo "Please install: apt-get install $${missing[*]}"; exit 1; fi
	  apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null
	fi

# For the tests and the soaks that want one: they start a server of their own, so no cluster is made for the machine.
postgresql:
	@if ! command -v postgres >/dev/null && ! test -x /usr/lib/postgresql/15/bin/postgres; then
	  if [ "$$(id -u)" != 0 ]; then echo "Please install: apt-get install postgresql-15"; exit 1; fi
	  apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null
	  sed -i 's/^#* *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 >/dev/null
	fi

$(VENV)/.installed: constraints.txt pyproject.toml client/pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; give PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./client -e '.[checks,dev]'
	touch $@

setup: system $(VENV)/.installed ## Install what is missing

# `install --no-save` keeps to the lock file too; `ci` also wants the linter packages of every other platform, which some
# mirrors of the registry do not carry.
# Node is for the proto linter, for the test that a client in another language works, and for a second verifier of reports.
node:
	@if ! command -v npm >/dev/null; then
	  if [ "$$(id -u)" != 0 ]; then echo "Please install: apt-get install nodejs npm"; exit 1; fi
	  apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
	fi
	for folder in tests/node tests/verifiers; do
	  if [ $$folder/package-lock.json -nt $$folder/node_modules/.package-lock.json ]; then
	    npm --prefix $$folder install --no-save --silent --no-audit --no-fund
	    touch $$folder/node_modules/.package-lock.json
	  fi
	done

demo: setup ## Audit two models on an embedded service; ends in verified signed reports
	@CACHE=$(CACHE) deploy/demo.sh

# One thread of arithmetic a worker: two workers with two threads each spend half of the time waiting for one another.
test test-all: export OMP_NUM_THREADS = 1
test test-all: export OPENBLAS_NUM_THREADS = 1

# Files start in the order of tests/conftest.py: long ones first. Three processes on two cores, because end-to-end tests
# wait much; temporary files lie in memory where there is room, because databases and blobs sync much.
# Some tests watch limits bite while other processes keep the second core busy. What fails is run once more, alone, and
# both runs are printed: a test that fails twice is broken, one that fails once deserves a look.
test: setup node postgresql ## All tests that need no GPU (some 13 minutes on 2 cores)
	@free=$$(df --output=avail -BG /dev/shm 2>/dev/null | tail -n 1 | tr -dc 0-9)
	if [ "$${free:-0}" -ge 6 ]; then memory=$$(mktemp -d /dev/shm/assay.XXXXXX); trap 'rm -rf "$$memory"' EXIT; fi
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder $${memory:+--basetemp="$$memory/t"} || {
	  echo "== what failed, once more and alone"
	  $(BIN)/python -m pytest -m "not slow" --last-failed --last-failed-no-failures none
	}

test-all: setup node postgresql ## The slow tests too
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup node ## Style, types, import contracts, protos and what they break, stale generated files
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	tests/node/node_modules/.bin/buf lint protos
	tests/node/node_modules/.bin/buf breaking protos --against protos/base.binpb
	deploy/stale.sh

proto: setup ## Make the stubs from the protos
	@protos/generate.sh >/dev/null

# An image and no branch or tag, so that a shallow clone without either can be checked. A break is made knowingly: remove
# the old base first (docs/adr/0002 says when one may be).
proto-base: setup node ## At a release: make today's protos what later ones must not break
	@if [ -e protos/base.binpb ]; then tests/node/node_modules/.bin/buf breaking protos --against protos/base.binpb; fi
	tests/node/node_modules/.bin/buf build protos --exclude-source-info -o protos/base.binpb

catalogue: setup ## Make catalogue.json and architectures.json from the checks
	@$(BIN)/python -m checks catalogue --out client/assay/catalogue.json --architectures checks/architectures.json

sets: setup ## Make the committed data sets of truth_probe
	@$(BIN)/python -m checks.truth_probe.sets.generate

nulls: setup ## Make the committed null tables of clusterability (minutes)
	@$(BIN)/python -m checks.clusterability.nulls

bench: setup ## Measure: audit against bare forward passes, submit to first forward
	@CACHE=$(CACHE) $(BIN)/python benchmarks/audit_overhead.py

sandbox-report: setup ## Print the attack matrix of this machine's sandbox
	@$(BIN)/python -m tests.sandbox.suite

sandbox-matrix: setup ## Write the matrix of this machine's sandbox to sandbox/matrix.json (minutes)
	@$(BIN)/python -m tests.sandbox.suite --out sandbox/matrix.json

soak: setup $(filter postgresql,$(STORE)) ## Kill processes FAULTS times (SEED replays the plan) and count what was lost
	@$(BIN)/python -m benchmarks.soak --faults $(FAULTS) --seed $(SEED) --store $(STORE)

failure-matrix: setup $(filter postgresql,$(STORES)) ## Do every fault of the failure matrix on each of STORES and print what the journals say (half an hour)
	@$(BIN)/python -m benchmarks.soak_matrix --stores $(STORES) --rows "$(ROWS)"

clean: ## Remove what the project made here, but not the caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build client/build *.egg-info client/*.egg-info
