# `make demo` shows the main job on real data, `make test` runs the tests, `make test-all` those as well that take long
# or need optional packages; all set up .venv first.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Python compiles what it imports; compiling every file of torch at once only takes time.
INSTALL := $(RUN) -m pip install --disable-pip-version-check --no-compile

.PHONY: demo test test-all lint clean

demo: $(VENV)/.runtime
	$(RUN) benchmarks/own_table.py
	$(RUN) benchmarks/mmnas_table.py --rows searched

test: $(VENV)/.dev
	$(RUN) -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(VENV)/.dev $(VENV)/.optional
	$(RUN) -m pytest -n auto --dist worksteal

$(VENV)/.optional: requirements-optional.txt | $(RUN)
	$(INSTALL) -r requirements-optional.txt
	@touch $@

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m mypy

$(RUN):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(RUN)
	@echo "installing into $(VENV): several gigabytes, a few minutes"
	$(INSTALL) -r requirements.txt
	@touch $@

# It includes requirements.txt: one call of pip for both.
$(VENV)/.dev: requirements-dev.txt requirements.txt | $(RUN)
	@echo "installing into $(VENV): several gigabytes, a few minutes"
	$(INSTALL) -r requirements-dev.txt
	@touch $(VENV)/.runtime $@

clean:
	rm -rf $(VENV) demo
