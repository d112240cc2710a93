# One environment in .venv, made from pyproject.toml and constraints.txt; the laptop and CI run the same commands.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEV := .venv/.dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.PHONY: demo test check format clean

demo: $(READY)
	$(BIN)/bestiary demo

# A worker that dies ends the run at once: restarted near the end of a run, xdist waits for it for ever.
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	@echo "Making the environment in .venv (about a minute) ..."
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

$(DEV): $(READY)
	$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist
