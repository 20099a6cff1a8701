# make book   every chapter at its quick size, then the pages     make test   every test
# make faults   what machines do to a run, what is seen of it, and that nothing is lost: a table, some minutes
# Both first make the environment .venv, and again only when pyproject.toml or constraints.txt changes.
# Another Python:  make book PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
RUN := $(VENV)/Scripts/python
else
RUN := $(VENV)/bin/python
endif
READY := $(VENV)/.ready

.PHONY: book test faults bench clean

book: $(READY)
	$(RUN) -m support run --profile quick
	@echo "building the pages ..."
	@$(RUN) -m support build

test: $(READY)
	$(RUN) -m pytest -n logical --dist loadfile --benchmark-disable

faults: $(READY)
	$(RUN) tests/faults.py

bench: $(READY)
	$(RUN) -m pytest tests/benchmarks --benchmark-only

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else '$(PYTHON) is Python ' + sys.version.split()[0] + '; the book needs 3.11 or newer: make PYTHON=...')"
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e ".[book,tests,classroom]"
	@$(RUN) -c "import pathlib; pathlib.Path('$(READY)').touch()"

clean:
	@$(PYTHON) -c "import shutil; [shutil.rmtree(folder, ignore_errors=True) for folder in ('$(VENV)', '_build')]"
