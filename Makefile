# Needs only Python >= 3.11 (with venv and pip), make and git.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check docs package clean

demo: .venv/ready
	$(BIN)/calr demo

# Without whole commands (e2e) and several processes (distributed), which take most of the time.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --maxschedchunk 1 -m "not e2e and not distributed"

test-all: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --maxschedchunk 1

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules calr_cli
	$(BIN)/python docs/generate.py --check

docs: .venv/ready
	$(BIN)/python docs/generate.py

# A source archive and, from it, a wheel.
package: .venv/ready
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("calr needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
