# make quickstart   the first five minutes, on the built-in corpus (or DATA=/folder/or.csv), from an empty clone
# make test         the tests, from an empty clone
# Both set everything up themselves in .venv, and may be called again at any time.

SHELL := /bin/bash
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
# Named so, since dill, which MTEB's data sets use, knows installed code from a user's by this name alone.
ADAPTERS := .adapters/site-packages
DATA ?=
PAGE ?=
BASE ?=
ONLY ?=
RUN ?=
OUT ?= docs/masking
AUDIO ?= ../shared/audio
LAYERS ?= last
POOLING ?= mean
COMMAND ?=
FUZZ ?=
BENCHMARKS := train profile_step lengths prepare embed masking memory busy start

.PHONY: setup quickstart test test-slow test-processors test-adapters lint format bench bench-compare device-wheels device-check tiny-encoder model-card faults study-report docs-pictures clean

# Modules are compiled when first imported: most never are, and compiling them all is half of an installation.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

setup: .venv/.ready

# melmask with its built-in corpus and all that its pages show: enough for the quickstart.
.venv/.installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "melmask needs Python 3.11 or newer: apt-get install python3 python3-venv"; exit 1; }
	@echo "== setting up .venv with $$($(PYTHON) --version): a minute the first time, nothing later"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "making .venv failed: apt-get install python3-venv"; exit 1; }
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -e .
	@touch $@

.venv/.ready: requirements-dev.txt .venv/.installed
	@echo "== installing what the tests need into .venv: a minute the first time, nothing later"
	$(INSTALL) -r requirements-dev.txt
	@touch $@

quickstart: .venv/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/quickstart.sh "$(DATA)"

test: setup
	@echo "== the default tests (the slow ones: make test-slow)"
	$(BIN)/python -m pytest -q

test-slow: setup test-processors test-adapters
	@echo "== the slow tests"
	$(BIN)/python -m pytest -q -n 0 -m slow --timeout=1800

test-processors: setup
	@echo "== the numerical tests as on other processors, and on one and two threads"
	$(BIN)/python tests/processors.py

.adapters/.ready: requirements-adapters.txt .venv/.ready
	@echo "== installing HEAR's validator, X-ARES, MTEB and the loggers into .adapters: a minute the first time, nothing later"
	@rm -rf .adapters
	$(INSTALL) --no-deps --target $(ADAPTERS) -r $<
	@touch $@

test-adapters: setup .adapters/.ready
	@echo "== our adapters under the packages that they are for"
	PYTHONPATH="$(CURDIR)/$(ADAPTERS)" $(BIN)/python -m pytest -q -n 0 -m adapters tests/end_to_end

lint: setup
	@echo "== style, types and spelling"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: setup
	@echo "== ruff's fixes and formatting"
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@echo "== speed, as ratios within one run (PAGE=docs/performance.md puts the tables there)"
	@for name in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py $(if $(PAGE),--markdown $(PAGE)) || exit 1; done

bench-compare: setup
	@test -n "$(BASE)" || { echo "name the revision to compare with: make bench-compare BASE=rev"; exit 1; }
	@echo "== the quick benchmarks here and at $(BASE), in alternation"
	$(BIN)/python benchmarks/compare.py $(BASE) $(if $(ONLY),--only $(ONLY))

# What a machine with an accelerator, but without a network, may lack; for its version of Python (57 MiB, most of it pyarrow).
DEVICE_PYTHON ?= 3.12
DEVICE_PACKAGES := soundfile cffi pycparser soxr tyro docstring-parser typeguard shtab pyarrow jinja2 \
	filelock xxhash markupsafe jaxtyping wadler-lindig beartype threadpoolctl typing-extensions rich

device-wheels: setup
	@echo "== the wheels that make device-check needs, into .device (DEVICE_PYTHON=3.13: for another version of Python)"
	@rm -f .device/*.whl
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--python-version $(DEVICE_PYTHON) --dest .device --constraint requirements.txt --constraint requirements-dev.txt \
		$(DEVICE_PACKAGES)

device-check:
	@echo "== an accelerator: the same numbers as on a CPU, and how fast (needs no network; takes under 9 minutes)"
	@PYTHON="$(if $(wildcard $(BIN)/python),$(BIN)/python,python3)" bash tools/device_check.sh

tiny-encoder: setup
	@test -n "$(RUN)" || { echo "name the run: make tiny-encoder RUN=folder LAYERS=last POOLING=mean+std COMMAND=..."; exit 1; }
	@echo "== a run's encoder, in half precision, as the one that comes with melmask"
	PYTHONPATH=tools $(BIN)/python -m model_card.ship "$(RUN)" --layers $(LAYERS) --pooling $(POOLING) --command "$(COMMAND)"

model-card: setup
	@echo "== the figures of MODEL_CARD.md, measured on the tables in $(AUDIO) (21 minutes on two cores)"
	PYTHONPATH=tools $(BIN)/python -m model_card --audio "$(AUDIO)"

faults: setup
	@echo "== every fault of tools/faults, and docs/reliability.md (6 minutes on two cores; ONLY=\"names bounds\", FUZZ=1000)"
	PYTHONPATH=tools $(BIN)/python -m faults $(addprefix --only ,$(ONLY)) $(if $(FUZZ),--num-fuzz $(FUZZ))

study-report: setup
	@echo "== out/study/study.html, docs/guidance.md with its pictures and the table of README.md, from studies/small"
	PYTHONPATH=tools $(BIN)/python -m guidance

docs-pictures: setup
	@echo "== the pictures of docs/masking.md and docs/procedural.md (ONLY=\"dwm sgim\": some of them; RUN=folder: another model; OUT=folder)"
	PYTHONPATH=tools $(BIN)/python -m field_guide --out "$(OUT)" $(if $(RUN),--run "$(RUN)") $(if $(ONLY),--only $(ONLY))
	$(if $(ONLY),,PYTHONPATH=tools $(BIN)/python -m procedural_picture)

clean:
	rm -rf .venv .adapters out .pytest_cache .mypy_cache .ruff_cache
