# Two commands do everything: `make leaderboard` and `make test`. Both install first where needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MARK ?= not slow
JOBS ?= 2

.PHONY: leaderboard test test-all check speed clean

leaderboard: $(VENV)/.installed
	$(BIN)/plasticbench study experiments/quick.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n $(JOBS) -m "$(MARK)"

test-all:
	$(MAKE) test MARK="slow or not slow"

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

speed: $(VENV)/.installed
	$(BIN)/python -m experiments.speed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("plasticbench needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
