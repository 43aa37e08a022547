# make setup | demo | test | test-all. PYTHON: the interpreter the environment is made with (3.10.12, or 3.11.4 or newer).
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: setup demo test test-all
setup: $(READY)

# An environment of another interpreter, or an unfinished one, is completed by pip; nothing is deleted.
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10, 12) or (3, 11) <= v < (3, 11, 4))' || \
		{ echo "Python 3.10.12, or 3.11.4 or newer, is needed: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	touch $(READY)

# Zero-shot, CoOp and SoftCPT on Outfits16 with the tiny backbone, 3 seeds: one table and a chart.
demo: setup
	sh scripts/demo.sh

# All but the slow tests, in five minutes on two cores.
test: setup
	$(VENV)/bin/python -m pytest -m "not slow"

test-all: setup
	$(VENV)/bin/python -m pytest
