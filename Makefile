# Every target does its own set-up in .venv, and does again only what has changed. `make help` lists them.
#   PYTHON=python3.12 make test    builds .venv anew with that interpreter, and stays with it
#   make test-python ARGS="-k ids" passes ARGS on to the program that the target runs

SHELL := bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

ARGS ?=
LOCKED := $(if $(CI),--locked)

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
DONE := $(VENV)/.done
CARGO_TEST := --workspace --exclude limnion-python $(LOCKED)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Cargo and maturin must look at the same Python, or each builds PyO3 anew after the other.
export PYO3_PYTHON := $(CURDIR)/$(PY)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH

.PHONY: campaigns campaign-crash campaign-damage campaign-faults campaign-model help demo test test-rust test-python test-clouds check check-rust check-python types bench compare compare-store compare-lake compare-disk wheel wheel-clouds sdist wheels format clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DONE)/built ## search real text by meaning, under PATH or in Python's own docstrings: make demo ARGS=PATH
	@$(BIN)/limnion demo $(ARGS)

test: test-rust test-python test-clouds ## run all tests

test-rust: $(DONE)/python ## run the tests of the crates, with their examples
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --status-level fail $(CARGO_TEST) && cargo test --quiet --doc $(CARGO_TEST); \
	else \
		cargo test --quiet $(CARGO_TEST); \
	fi

test-python: $(DONE)/built $(DONE)/test ## run the tests of the package, with its examples
	$(PY) -m pytest $(ARGS)

# In an environment of its own, as whoever installs `limnion[clouds]` has it: there limnion takes another native module.
CLOUDS := .venv-clouds
test-clouds: $(DONE)/built $(DONE)/clouds ## run the tests of object stores, and the examples
	$(CLOUDS)/bin/python -m pytest tests/clouds $(ARGS)

# What `make test` takes samples of, whole. docs/trust.md has the figures.
TRUST := cargo test --quiet --release -p limnion-store $(LOCKED) --test trust

campaigns: campaign-crash campaign-faults campaign-model campaign-damage ## all of the following: some hours

campaign-crash: $(DONE)/built $(DONE)/test ## kill writers, at random and at every system call; cut the power
	LIMNION_CRASHES=$(or $(CRASHES),1000) LIMNION_POWER_CUTS=20000 LIMNION_CAMPAIGN=1 $(TRUST) -- crash power --nocapture
	LIMNION_PYTHON_CRASHES=$(or $(CRASHES),500) $(PY) -m pytest -s --timeout=0 tests/test_crash.py

campaign-damage: ## flip a bit in every byte of a store, cut its log at every byte, swap and age its blocks
	LIMNION_SCALE=1 LIMNION_FLIPS=0 LIMNION_CUTS=0 LIMNION_BLOCKS=10000 LIMNION_SALVAGES=500 $(TRUST) -- damage --nocapture

campaign-faults: ## fail every call of the system in turn; needs root for the small file systems
	LIMNION_CAMPAIGN=1 $(TRUST) -- faults --nocapture

campaign-model: $(DONE)/built $(DONE)/test ## compare engines and the Python package with plain models, at length
	LIMNION_ENGINE_CASES=20000 cargo test --quiet --release -p limnion-store $(LOCKED) --test engines -- --nocapture
	LIMNION_MODELS=$(or $(MODELS),1500) LIMNION_HISTORIES=$(or $(HISTORIES),1000) \
		$(PY) -m pytest -s --timeout=0 tests/test_model.py tests/test_linearizability.py

check: check-rust check-python types ## look for faults without running anything: format, lints, types

check-rust: $(DONE)/python
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets $(LOCKED) -- -D warnings

# mypy looks into numpy, which comes with the build, and into what the tests import.
check-python: $(DONE)/built $(DONE)/test $(DONE)/check
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) tools/make_sync.py --check
	$(PY) -m mypy

# The stub against the compiled module, and the package as a type checker of its users sees it.
types: $(DONE)/built $(DONE)/check
	$(PY) -m mypy.stubtest limnion._native --mypy-config-file pyproject.toml --allowlist stubs/allowlist.txt
	$(PY) tools/verify_types.py

bench: $(DONE)/python ## measure the kernels: make bench ARGS="-- scan"
	cargo bench $(CARGO_TEST) $(ARGS)

compare: $(DONE)/built ## measure limnion beside its peers, and write the table of the README
	$(PY) benches/compare/run.py $(or $(ARGS),--into README.md benches/RESULTS.md)

compare-store: $(DONE)/built ## measure the store beside sqlite3 and aiosqlite, and write its table
	$(PY) benches/compare/store.py $(or $(ARGS),--into benches/RESULTS.md)

compare-lake: $(DONE)/built ## measure a lake beside its bare index, and write its table
	$(PY) benches/compare/lake.py $(or $(ARGS),--into benches/RESULTS.md)

compare-disk: $(DONE)/built ## measure a lake over Parquet beside LanceDB, and write its table
	$(PY) benches/compare/disk.py $(or $(ARGS),--into benches/RESULTS.md)

wheel-clouds: $(DONE)/build ## build the wheel of limnion-clouds into dist/
	cd clouds && ../$(PY) -m maturin build --release --out ../dist $(LOCKED)

wheel: $(DONE)/build ## build the wheel into dist/, and try it where there is no compiler
	rm -rf dist
	$(PY) -m maturin build --release --out dist $(LOCKED)
	$(PY) tools/try_wheel.py dist/*.whl

sdist: $(DONE)/build ## pack the sources into dist/
	$(PY) -m maturin sdist --out dist

wheels: $(DONE)/wheels ## build and test all wheels of this platform into wheelhouse/ (Linux: needs Docker)
	$(PY) -m cibuildwheel --output-dir wheelhouse $(ARGS)

format: $(DONE)/check ## format everything, and mend what can be mended by itself
	cargo fmt
	$(PY) -m ruff check --fix-only --quiet
	$(PY) -m ruff format
	$(PY) tools/make_sync.py

clean: ## remove all that make and cargo have made
	rm -rf $(VENV) $(CLOUDS) target dist wheelhouse
	find python -name '_native*.so' -delete -o -name '_native*.pyd' -delete -o -name '_native*.dylib' -delete

# Set-up. Each file in .venv/.done says that a step is done.

python_version = $(shell "$(1)" -c 'import sys; print(sys.version)' 2>/dev/null)
ifdef PYTHON
ifneq ($(call python_version,$(PYTHON)),$(call python_version,$(PY)))
$(DONE)/python: FORCE
endif
endif

$(DONE)/python:
	@python=$$(PYTHON="$(PYTHON)" sh tools/doctor.sh) || exit 1; \
	echo "Making $(VENV) with $$("$$python" --version)" && \
	rm -rf $(VENV) && \
	"$$python" -m venv $(VENV)
	@$(PY) -m pip install --quiet --upgrade "pip>=25.1" # the first that knows dependency groups
	@mkdir -p $(DONE) && touch $@

# The dependency groups of pyproject.toml.
$(DONE)/build $(DONE)/test $(DONE)/check $(DONE)/wheels: $(DONE)/%: $(DONE)/python pyproject.toml
	@echo "Installing what $(@F) needs"
	@$(PY) -m pip install --quiet --group $(@F)
	@touch $@

SOURCES := $(shell find crates -type f 2>/dev/null) Cargo.toml Cargo.lock pyproject.toml
$(DONE)/built: $(DONE)/build $(SOURCES)
	@echo "Compiling limnion: the first time takes some minutes"
	@$(PY) -m maturin develop --release $(LOCKED)
	@touch $@

$(DONE)/clouds: $(DONE)/build $(SOURCES) clouds/pyproject.toml
	@echo "Compiling limnion-clouds"
	@test -e $(CLOUDS) || { $(PY) -m venv $(CLOUDS) && $(CLOUDS)/bin/python -m pip install --quiet --upgrade "pip>=25.1"; }
	@$(CLOUDS)/bin/python -m pip install --quiet --group clouds "numpy>=1.26"
	@rm -rf $(CLOUDS)/wheels
	@$(PY) -m maturin build --release --out $(CLOUDS)/wheels $(LOCKED)
	@cd clouds && ../$(PY) -m maturin build --release --out ../$(CLOUDS)/wheels $(LOCKED)
	@$(CLOUDS)/bin/python -m pip install --quiet --force-reinstall --no-deps $(CLOUDS)/wheels/*.whl
	@touch $@
