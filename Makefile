# `make` alone lists the targets. PYTHON names another interpreter, ARGS what `run` and `test` pass on,
# SANITIZE=1 a build with the address and undefined-behaviour sanitizers.
PYTHON ?= python3
BIN := .venv/bin
C_FILES := $(shell find cext guest_kernel -type f 2>/dev/null)
BUILD := --no-build-isolation -Cbuild-dir=build/$(if $(SANITIZE),sanitize -Ccmake.define.RING1_SANITIZE=ON,dev)

# need(test, packages): say which packages are missing before anything fails without saying so.
need = { $(1); } >/dev/null 2>&1 || { echo "ring1 needs $(2); install it with: sudo apt-get install $(2)" >&2; exit 1; }

.PHONY: help dev build run test slow held bench check abi costs mutate guest tour wheel clean
help:           ## list the targets
	@sed -n 's/^\([a-z]*\): *[^#]*## /\1\t/p' Makefile | expand -t 10

dev: build      ## create .venv, install what is missing, build the C extension and the guests
	@:

build: .venv/.built  ## rebuild what changed
	@:

run: build      ## boot Debian's Linux in ring 1, to a shell (ARGS="--help")
	@$(BIN)/ring1 demo linux $(ARGS) || test $$? = 130  # 130: left with Ctrl-A x

test: build     ## run the tests (ARGS="-k walk")
	@$(BIN)/pytest -m "not slow" $(ARGS)

slow: build     ## run the tests that take long: whole kernels, other loaders, a million of something
	@$(BIN)/pytest -m slow $(ARGS)

held: build     ## run the tests again, guests held by shadow tables and by trap
	@$(BIN)/pytest --hold shadow $(ARGS) && $(BIN)/pytest --hold trap $(ARGS)

bench: build    ## measure, against QEMU TCG and bare Unicorn
	@$(BIN)/ring1 bench $(ARGS)

check: build    ## the gate: lint, format, types, layers, house rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/lint-imports --no-logo && $(BIN)/pytest -q tests/house

abi: .venv/.deps    ## generate the headers for the C engine and the guests
	@$(BIN)/python -m hwmodel.arch.generate && $(BIN)/python -m vmm.pv.generate

costs: .venv/.deps  ## generate the tables of instruction costs (needs llvm-mca: apt-get install llvm)
	@$(BIN)/python -m hwmodel.timing.tables

mutate: build   ## leave out each entry check in turn: its tests must notice
	@$(BIN)/python tests/hwmodel/vmx/mutate.py

guest:          ## build the guest images into build/images
	@mkdir -p build/images && $(MAKE) -s -C guest_kernel OUT=$(CURDIR)/build/images all

tour:           ## print the guided tour through the code
	@$(PYTHON) tests/house/tour.py

wheel: .venv/.deps  ## build an installable wheel into dist
	@$(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist .

clean:          ## remove what was built (not .venv)
	@rm -rf build dist .venv/.built .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/.deps: pyproject.toml
	@$(call need,command -v $(PYTHON),python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ring1 needs Python 3.11 or newer; install one (sudo apt-get install python3.11 python3.11-venv python3.11-dev) and say: make PYTHON=python3.11" >&2; exit 1; }
	@$(call need,$(PYTHON) -c 'import venv$(comma) ensurepip',python3-venv)
	@$(call need,test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h",python3-dev)
	@$(call need,command -v gcc,gcc)
	@$(call need,echo '#include <stdlib.h>' | gcc -E -,libc6-dev)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@touch $@
comma := ,

.venv/.built: .venv/.deps $(C_FILES)
	@$(BIN)/pip install -q --disable-pip-version-check $(BUILD) -e .
	@touch $@
