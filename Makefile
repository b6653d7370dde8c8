# Needs make and Python 3.11 or later; everything else goes into a virtual environment of its own.
#
#   make demo     the main job on a real log, explained step by step
#   make test     the tests                   (make test ARGS="-k segment -x" passes options on)
#                                            (JOBS=0: one after the other, in one process)
#   make lint     linter, formatter check, strict type check
#   make bench    the benchmarks
#   make docs     docs/cli.md, from the commands and from docs/cli/; the tables of docs/replication.md
#   make screens  the pictures in docs/screens/, of commands that are run for them
#   make clean    removes everything that the lines above made
#
# To use another interpreter: make PYTHON=python3.13 ...
# To use an environment that is ready, and install nothing: make VENV=DIR INSTALL=none ...

PYTHON ?= python3
VENV = .venv
INSTALL = editable
ARGS =
JOBS = auto

PY = $(VENV)/bin/python
# crcmod has no pyproject.toml: an old pip would build it in the old way, and warn.
PIP = PIP_USE_PEP517=1 "$(PY)" -m pip --quiet --disable-pip-version-check --no-input

# Settings of the calling shell that would send Python or pip elsewhere than to our environment.
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX

# A closed standard input would hand descriptor 0 to the next file opened; give it /dev/null.
STDIN = { true <&0; } 2>/dev/null || exec </dev/null;

# One stamp for each set of packages: pip runs again only when pyproject.toml has changed.
ifeq ($(INSTALL),none)
ready_run =
ready_test =
ready_dev =
else
ready_run = $(VENV)/.ready-run
ready_test = $(VENV)/.ready-test
ready_dev = $(VENV)/.ready-dev
endif

.PHONY: help demo test lint bench docs screens clean
.NOTPARALLEL:

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: $(ready_run)
	@$(STDIN) LOGSTORE="$(VENV)/bin/logstore" PYTHON="$(PY)" bash examples/demo.sh

# PYTHONSAFEPATH keeps the current folder off the import path: the tests import the logstore that is
# installed (here: by an editable install that points back to this folder; in CI: the wheel).
test: $(ready_test)
	@echo "==> running the tests"
	@$(STDIN) PYTHONSAFEPATH=1 "$(PY)" -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(ready_dev)
	@echo "==> checking style"
	@"$(PY)" -m ruff check .
	@"$(PY)" -m ruff format --check .
	@echo "==> checking types"
	@"$(PY)" -m mypy

bench: $(ready_dev)
	@echo "==> encoding and decoding (bench/codec.py)"
	@$(STDIN) "$(PY)" bench/codec.py $(ARGS)
	@echo "==> appending (bench/append.py)"
	@$(STDIN) "$(PY)" bench/append.py $(ARGS)
	@echo "==> a log beside a table in SQLite (bench/sqlite.py)"
	@$(STDIN) "$(PY)" bench/sqlite.py $(ARGS)
	@echo "==> compaction (bench/compaction.py)"
	@$(STDIN) "$(PY)" bench/compaction.py $(ARGS)
	@echo "==> opening and recovery (bench/recovery.py)"
	@$(STDIN) "$(PY)" bench/recovery.py $(ARGS)
	@echo "==> producing (bench/producer.py)"
	@$(STDIN) "$(PY)" bench/producer.py $(ARGS)
	@echo "==> consuming (bench/consumer.py)"
	@$(STDIN) "$(PY)" bench/consumer.py $(ARGS)
	@echo "==> work queues (bench/queue.py)"
	@$(STDIN) "$(PY)" bench/queue.py $(ARGS)
	@echo "==> several processes (bench/processes.py)"
	@$(STDIN) "$(PY)" bench/processes.py $(ARGS)
	@echo "==> searching and counting (bench/find.py)"
	@$(STDIN) "$(PY)" bench/find.py $(ARGS)
	@echo "==> replaying (bench/replay.py)"
	@$(STDIN) "$(PY)" bench/replay.py $(ARGS)
	@echo "==> simulating (bench/simulate.py)"
	@$(STDIN) "$(PY)" bench/simulate.py $(ARGS)

docs: $(ready_run)
	@$(STDIN) "$(PY)" docs/make_cli.py
	@$(STDIN) "$(PY)" docs/make_replication.py

screens: $(ready_run)
	@$(STDIN) "$(PY)" docs/make_screens.py

$(VENV)/.made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null </dev/null || { \
	    echo "logstore needs Python 3.11 or later, and '$(PYTHON)' is not that:" \
	        "name another one with 'make PYTHON=python3.11 $(or $(MAKECMDGOALS),demo)'" >&2; exit 1; }
	@echo "==> making a virtual environment in $(VENV)"
	@"$(PYTHON)" -m venv "$(VENV)" </dev/null || { \
	    echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu, install python3-venv" >&2; \
	    exit 1; }
	@touch "$@"

$(VENV)/.ready-run: pyproject.toml $(VENV)/.made
	@echo "==> installing logstore and what it needs (the first time takes up to a minute)"
	@$(PIP) install -e . </dev/null
	@touch "$@"

$(VENV)/.ready-test: pyproject.toml $(VENV)/.made
	@echo "==> installing logstore and what its tests need (the first time takes up to a minute)"
	@$(PIP) install -e '.[test]' </dev/null
	@touch "$@" "$(VENV)/.ready-run"

$(VENV)/.ready-dev: pyproject.toml $(VENV)/.made
	@echo "==> installing logstore and its development tools (the first time takes up to a minute)"
	@$(PIP) install -e '.[dev]' </dev/null
	@touch "$@" "$(VENV)/.ready-test" "$(VENV)/.ready-run"

# An environment is removed only if this Makefile made it.
clean:
	@if [ -e "$(VENV)/.made" ]; then rm -rf "$(VENV)"; fi
	@rm -rf build dist demo-data logstore.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
	@echo "==> clean"
