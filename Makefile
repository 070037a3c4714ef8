# `make demo` and `make test` set up everything they need in .venv; nothing else has to be installed
# but Python 3.11+, make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs gallery bench notebooks coverage audit installs clean

demo: $(READY)
	$(BIN)/sharpmaml demo --out demo

test: lint docs
	$(BIN)/python -m pytest -q -n 2

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  # docs/_build/html/index.html
	$(BIN)/sphinx-build -E -W --keep-going -q -D plot_gallery=0 docs docs/_build/html

gallery: $(READY)  # the same, and the scripts of docs/gallery are run and their figures shown
	rm -rf docs/_gallery
	$(BIN)/sphinx-build -E -W --keep-going -q docs docs/_build/html

bench: $(READY)
	$(BIN)/python benchmarks/costs.py

notebooks: $(READY)
	$(BIN)/python tests/notebook_runs.py notebooks/*.ipynb

# Signals that come as a process writes down what it covered are not what these are about.
TIMED := tests/sharpmaml/test_faults_training.py::test_what_else_happens_to_runs \
	tests/landscape/test_faults.py::test_signals_keep_the_work_and_say_one_line

coverage: $(READY)  # of lines and branches, also of the processes that tests start; fails below 95 %
	rm -rf .coverage
	$(BIN)/coverage run -m pytest -q -n 2 --timeout 900 $(TIMED:%=--deselect %)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

audit: $(READY)  # known vulnerabilities of the pinned versions; asks the advisory services, so it needs the net
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,audit]'
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r constraints.txt

installs: $(READY)  # the wheel in empty environments, with the lowest and the newest dependencies
	$(BIN)/python benchmarks/installs.py --work $(VENV)/installs

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .coverage demo docs/_build docs/_gallery docs/_notebooks
