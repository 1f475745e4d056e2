# Everything is done from here, as root or as an ordinary user, on a Debian 12 with Python 3.11+ and make.
# Set-up speaks on standard error only, so that `make demo ARGS="--json"` leaves standard output to the program.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-long check coverage bench lock system-programs
.DEFAULT_GOAL := help

ARGS ?=
BIN := .venv/bin
LOCKED := requirements-setup.lock pyproject.toml

# A .venv copied along with the tree would run other code than this, a half-made one none: both are made anew.
ifneq ($(wildcard .venv),)
ifeq ($(shell grep -qsF -- '-m venv $(CURDIR)/.venv' .venv/pyvenv.cfg && $(BIN)/python -c 'import pip' 2>/dev/null && echo good),)
.venv/runtime.done .venv/development.done: renew
endif
endif

# apt NAME: install a Debian package quietly, as root only. Its programs are wanted and not its service: policy-rc.d,
# where there is none yet, keeps Debian from starting that.
define APT
apt() {
    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "Installing $$1 from Debian …" >&2
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$$policy"
        chmod 755 "$$policy"
        trap "rm -f $$policy" EXIT
    fi
    get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 "$$@" </dev/null >/dev/null; }
    # Lists that are missing or old make the first try fail.
    get install --no-install-recommends "$$1" 2>/dev/null || { get update && get install --no-install-recommends "$$1"; } >&2
}
endef

define FIND_PYTHON
$(APT)
can_make_venv() { "$$1" -c 'import ensurepip, venv' 2>/dev/null; }
python= enough=
# Debian's own Python first: it is built with profile-guided optimisation, which one built by hand seldom is, and
# runs the midnight sweep a fifth faster.
for candidate in $${PYTHON:-} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    enough=$${enough:-$$candidate}
    if can_make_venv "$$candidate"; then python=$$candidate; break; fi
done
if [ -z "$$enough" ]; then
    echo "Python 3.11 or newer is needed and none was found. On Debian, as root: apt-get install python3 python3-venv"
    exit 1
fi
if [ -z "$$python" ]; then
    apt python3-venv || true
    if ! can_make_venv "$$enough"; then
        echo "$$enough cannot make a virtual environment. On Debian, as root: apt-get install python3-venv"
        exit 1
    fi
    python=$$enough
fi
endef

# pip may have been told of a mirror, and the machine of a certificate of its own: uv reads neither by itself.
define UV
index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}}
[ -z "$$index" ] || export UV_DEFAULT_INDEX=$$index
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=true
uv() { VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/uv pip "$$@"; }
endef

define MAKE_VENV
exec 1>&2
if [ ! -x $(BIN)/python ]; then
    $(FIND_PYTHON)
    echo "Making .venv with $$("$$python" --version) …"
    "$$python" -m venv .venv
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
$(BIN)/python -m pip install --quiet --require-hashes -r requirements-setup.lock
$(UV)
endef

# The project itself goes in without its dependencies: those come from the lock files, by hash, and from nowhere else.
INSTALL_PROJECT = uv install --quiet --no-deps --no-build-isolation --editable .

help:  ## what can be asked for
	sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r target words; do
	    printf '  make %-10s %s\n' "$$target" "$$words"
	done

setup: .venv/development.done  ## all that development needs in .venv; leaves .venv/bin/lingdian

demo: .venv/runtime.done  ## a simulated district and its midnight: make demo ARGS="--once --terminals 10 --meters 2000"
	exec $(BIN)/lingdian demo $(ARGS)

test: .venv/development.done system-programs  ## all tests but the long ones; ARGS goes to pytest
	[ -z "$(ARGS)" ] || exec $(BIN)/python -m pytest -m "not long" $(ARGS)
	exec $(BIN)/python -m tests

test-long: .venv/development.done system-programs  ## the tests that take minutes or hours
	exec $(BIN)/python -m pytest -m long --timeout=0 $(ARGS)

check: .venv/development.done  ## format, lint, types, import contracts and the fast tests: run it before every commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	exec $(BIN)/python -m pytest -m "not database and not end_to_end and not long" $(ARGS)

coverage: .venv/development.done  ## branch coverage of protocols/, at least 98 %
	exec $(BIN)/python -m pytest tests/protocols -m "not long" --cov=protocols --cov-branch --cov-fail-under=98 \
	    --cov-report=term-missing:skip-covered $(ARGS)

bench: .venv/development.done  ## decode and sweep, with machine and versions; ARGS picks parts
	exec $(BIN)/python -m benchmarks $(ARGS)

lock: .venv/development.done  ## write the lock files again after a change in pyproject.toml; ARGS="--upgrade" renews pins
	$(UV)
	compile() { uv compile --quiet --universal --generate-hashes --no-emit-index-url --no-header $(ARGS) "$$@"; }
	compile --group setup --output-file requirements-setup.lock
	compile pyproject.toml --output-file requirements.lock
	compile pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock

# Adds what the program needs and takes nothing away: a demo after development leaves the test tools in place.
.venv/runtime.done: $(LOCKED) requirements.lock
	$(MAKE_VENV)
	echo "Installing what Lingdian needs …"
	uv install --quiet --require-hashes -r requirements.lock
	$(INSTALL_PROJECT)
	touch .venv/runtime.done

.venv/development.done: $(LOCKED) requirements-dev.lock requirements.lock
	$(MAKE_VENV)
	echo "Installing what Lingdian and its tests need …"
	uv sync --quiet --require-hashes requirements-dev.lock
	$(INSTALL_PROJECT)
	touch .venv/runtime.done .venv/development.done

.PHONY: renew
renew:
	rm -rf .venv

# Programs that only root can install. Without them the tests that need them are skipped and counted.
system-programs:
	$(APT)
	for program in prometheus mosquitto; do
	    PATH=$$PATH:/usr/sbin command -v "$$program" >/dev/null || apt "$$program" ||
	        echo "$$program is not installed: its tests will be skipped (as root, this would install it)." >&2
	done
