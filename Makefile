# Every target sets itself up from Python and pip alone, in .venv. `make` by itself lists the targets.
#
#   PYTHON=python3.12 make test    another Python (3.11 to 3.13) for a new .venv
#   PIP_FLAGS=...                  more options for pip; its own variables (PIP_INDEX_URL, ...) work too

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help setup demo demo-long demo-teacher formats students full-run test test-full lint format fonts
.DELETE_ON_ERROR:

help:
	@echo 'make demo          distil the shipped teacher, export, benchmark, read pictures (about 20 minutes, two cores)'
	@echo 'make demo-long     the same with more steps and two students trained from scratch (about 2 hours)'
	@echo 'make demo-teacher  train the shipped teacher anew, from nothing'
	@echo 'make formats       the students that ship in every format, into runs/formats'
	@echo 'make students      the students that ship, anew from the shipped teacher (over an hour), with the fonts of fonts.txt'
	@echo 'make full-run      a full-width pair from nothing, on one accelerator (about half an hour)'
	@echo 'make test          ruff, mypy --strict and the tests with coverage'
	@echo 'make test-full     the fonts of benchmarks/fonts.txt through apt-get, every test, then the demo'
	@echo 'make lint          ruff and mypy alone'
	@echo 'make format        let ruff write the files in the form that lint asks for'
	@echo 'make setup         only the virtual environment'

# A virtual environment that no longer starts (its Python was removed) is made anew.
$(READY): setup.py
	@if ! $(RUN) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --clear $(VENV); fi
	@echo 'Installing pocket-crnn and what it needs into $(VENV); the first time takes some minutes.'
	$(RUN) -m pip install --quiet --disable-pip-version-check --prefer-binary $(PIP_FLAGS) -e '.[dev,fonts,shaping]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(RUN) -m benchmarks.demo

demo-long: $(READY)
	$(RUN) -m benchmarks.demo --long

students: $(READY) fonts
	$(RUN) -m benchmarks.students

formats: $(READY)
	$(RUN) -m crnn export --model crnn/models/default.pt --to all --data synth --out runs/formats
	$(RUN) -m crnn export --model crnn/models/tiny.pt --to all --data synth --out runs/formats

demo-teacher: $(READY)
	$(RUN) -m benchmarks.demo_teacher

full-run: $(READY)
	@until $(RUN) -m benchmarks.full_run; do [ $$? = 75 ] || exit 1; done

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

test: lint
	$(RUN) -m pytest --cov --cov-report=term

test-full: lint fonts
	$(RUN) -m pip install --quiet --disable-pip-version-check --prefer-binary $(PIP_FLAGS) -e '.[mnn,ncnn,parquet]'
	$(RUN) -m pytest --cov --cov-report=term -m 'full or not full'
	$(RUN) -m benchmarks.demo

# A release may lack some of the packages; those are named, not passed over in silence.
fonts:
	@command -v apt-get >/dev/null || { echo 'There is no apt-get here; install the fonts of benchmarks/fonts.txt by other means.' >&2; exit 1; }
	@set -e; sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq; \
	found=; lacking=; \
	for package in $$(sed 's/#.*//' benchmarks/fonts.txt); do \
		if apt-cache show "$$package" >/dev/null 2>&1; then found="$$found $$package"; else lacking="$$lacking $$package"; fi; \
	done; \
	[ -z "$$lacking" ] || echo "Not in this release:$$lacking"; \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$found
