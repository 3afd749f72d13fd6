# `make demo` and `make test` do everything, from an empty machine with Python 3.11 to
# 3.13, of which the first is taken that is there.
PYTHON ?= $(shell for version in 3.11 3.12 3.13; do \
  python$$version -c 0 2>/dev/null && { echo python$$version; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/python
# Tests run in so many processes.
JOBS ?= 2

.PHONY: help setup demo demo-detection docs results reproduce test lint format clean

help:
	@echo "make demo            set up, train on the embedded data, evaluate, draw, export"
	@echo "make demo-detection  the same with a detector: train, evaluate, draw"
	@echo "make docs            set up, build the documentation as a site, into site/"
	@echo "make results         pages of results anew, from the files in docs/results/data"
	@echo "make reproduce       everything from nothing; says how long it takes; goes on"
	@echo "make test            set up, check style, run the tests"
	@echo "make format          bring the code into shape"
	@echo "make clean           remove the environment (not the demos' output)"

setup: $(VENV)/installed

# Only written when everything is installed, so that a broken install is tried again.
$(VENV)/installed: requirements.txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "error: no Python 3.11, 3.12 or 3.13 found; say make PYTHON=/path/to/it"; \
	    exit 2; }
	@echo "Taking $(PYTHON), $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --progress-bar on -r requirements.txt
	$(RUN) -m pip install --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup
	$(RUN) -m tools.demo$(if $(OUTPUT), --output $(OUTPUT))

demo-detection: setup
	$(RUN) -m tools.demo_detection$(if $(OUTPUT), --output $(OUTPUT))

docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --clean --quiet
	@echo "site/index.html"

results: setup
	$(RUN) -m tools.reproduce --pages $(QUESTIONS)

reproduce: setup
	$(RUN) -m tools.reproduce $(QUESTIONS)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test: lint
	$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV)
