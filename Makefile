PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test check audit soak faults bench clean

setup: $(BIN)/.ready

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/gateway serve --demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	rm -f .coverage .coverage.*
	$(BIN)/pytest --numprocesses 3 --dist loadfile --cov --cov-report=term

audit: setup
	$(BIN)/python -m tests.audit

soak: setup
	$(BIN)/pytest -m soak

faults: setup
	$(BIN)/python -m tests.faults --minutes 15 --report docs/reliability.md

bench: setup
	$(BIN)/python -m loadtest short

clean:
	rm -rf .venv .gateway .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
