# Each target works alone on a fresh clone: it makes the virtual environment when there is none.
VENV ?= .venv
PYTHON ?= python3
PIP_ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.activekd-lite-installed
DEMO := runs/demo
OFFLINE := runs/offline
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# OpenMP reads it when a kernel imports torch; activekd_lite sets it, too, where it is imported before torch (openmp.py).
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 10000
endif

.DEFAULT_GOAL := help
.PHONY: help install demo check test lint format lab notebooks offline picture clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1|\2/' | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo "VENV=$(VENV) PYTHON=$(PYTHON) can be overridden; PIP_ARGS is passed on to pip"

install: $(INSTALLED) ## make .venv and install everything with the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is %d.%d; name another with PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): several minutes on a slow line, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[notebooks,test]'
	@touch $@

demo: $(INSTALLED) ## the tour, and notebooks 00 to 06, executed, as pages with live figures: runs/demo/index.html
	@$(BIN)/activekd-lite tour --out $(DEMO)/tour.html
	@$(BIN)/activekd-lite notebooks --out $(DEMO)

check: lint ## lint, types and unit tests: what a contributor runs all the time
	@$(BIN)/mypy
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m unit -q $(PARALLEL)

# In one run, so that no core waits for the last notebook; the longest files come first.
test: $(INSTALLED) ## everything: the notebooks, and all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest notebooks tests --nbval-lax $(PARALLEL) --durations=25

lint: $(INSTALLED) ## ruff, and which wing may import which
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo --no-cache

format: $(INSTALLED) ## let ruff write
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lab: $(INSTALLED) ## open JupyterLab on the notebooks; runs/ is there, too
	@$(BIN)/jupyter lab --notebook-dir . --LabApp.default_url=/lab/tree/notebooks

notebooks: $(INSTALLED) ## run every notebook anew, write its outputs, time and memory back (pictures need kaleido and a Chromium)
	@$(BIN)/activekd-lite notebooks --refresh

offline: $(INSTALLED) ## all wheels and the student copies, to install where there is no network: runs/offline
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt --wheel-dir $(OFFLINE)/wheels '.[notebooks]'
	@$(BIN)/activekd-lite notebooks --student $(OFFLINE)/course
	@echo "on a laptop: python3 -m venv .venv && .venv/bin/pip install --no-index --find-links $(OFFLINE)/wheels 'activekd-lite[notebooks]'"

picture: $(INSTALLED) ## make the picture of README.md anew (needs kaleido and a Chromium)
	@$(BIN)/python notebooks/picture.py

clean: ## remove caches and runs, not the environment
	@rm -rf .cache runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
