# `make repro` runs the experiment, `make test` the tests; both set up .venv first. Needs git and Python 3.10 to 3.12 with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
UV_VERSION := 0.13.9
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro picture review export import audit report study dataset readers cluster sweep test test-long fuzz lint format lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-9s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## make .venv from the locked, hashed requirements (about 5 GB)

# uv installs everything; pip only brings uv. Bytecode is compiled here, since many images forbid Python to keep what it compiles.
# Detectron2's wheel is tagged for Python 3.10 but is plain Python where its compiled part does not load, which Mask R-CNN does not need:
# hence --python-version and --target.
$(VENV)/.ready: requirements.lock requirements-detectron2.lock Makefile pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version); Python 3.10 to 3.12 is needed: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python-version 3.10 --target "$$site" -r requirements-detectron2.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

repro: setup  ## run the whole experiment (what is cached is not run again, an arm that fails does so alone) and print the table
	@vlm-itl repro
	@vlm-itl report

picture: setup  ## draw README's picture again from the outputs that are there (docs/overview.svg)
	@vlm-itl picture

review: setup  ## let people decide in a browser (RUN=person-1, REVIEWER=name; without RUN on the proposals of start, for a run to come)
	@vlm-itl review $(if $(RUN),--run "$(RUN)") $(if $(REVIEWER),--reviewer "$(REVIEWER)")

FORMAT ?= both

export: setup  ## write what waits to be drawn in RUN to artifacts/export, for CVAT and Label Studio (FORMAT=cvat or label-studio: for one)
	@vlm-itl export --run "$(RUN)" --format "$(FORMAT)"

import: setup  ## take FILE, what people drew in RUN, back (REVIEWER=name; FINISHED=1: also what came back from CVAT as it was is right)
	@vlm-itl import --run "$(RUN)" $(if $(REVIEWER),--reviewer "$(REVIEWER)") $(if $(FINISHED),--finished) -- "$(FILE)"

N ?= 100

audit: setup  ## show people N random images that RUN's judge approved and N that it rejected, and count how many are right
	@vlm-itl audit --run "$(RUN)" -n "$(N)" $(if $(REVIEWER),--reviewer "$(REVIEWER)")

STUDY := artifacts/report/study.csv
POOLED := artifacts/report/pooled.json
COMMITS ?= 1

report: setup  ## write artifacts/report/index.html from the outputs that are there, with the sweep if `make study` has run
	@vlm-itl page $(if $(wildcard $(STUDY)),--study $(STUDY)) $(if $(wildcard $(POOLED)),--pooled $(POOLED))

study: setup  ## experiments of the last commit (COMMITS=-1: of all) to artifacts/report/study.csv, arms over seeds to pooled.csv
	@vlm-itl study --csv $(STUDY) --arms $(POOLED:.json=.csv) --pooled $(POOLED) --commits $(COMMITS)

MASKS ?= rle

dataset: setup  ## write RUN's labels and pictures to artifacts/dataset, a data set for other programs (MASKS=polygons for outlines)
	@vlm-itl dataset --run "$(RUN)" --masks "$(MASKS)"

cluster: setup  ## add Ray and submitit to .venv, for several machines (docs/guides/clusters.md)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements-cluster.lock

# other programs that read data sets; they want older libraries than the project has
readers: .venv-readers/.ready  ## make .venv-readers with supervision and datumaro, which `make dataset` then asks

.venv-readers/.ready: requirements-readers.lock $(VENV)/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-readers
	VIRTUAL_ENV=$(CURDIR)/.venv-readers $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements-readers.lock
	touch $@

SEEDS ?= 1,2,3

sweep: setup  ## the experiment for each of SEEDS (1,2,3) that is not there yet, then the page over seeds (JOBS=slurm: as jobs)
	@vlm-itl sweep --seeds "$(SEEDS)" $(if $(JOBS),--jobs "$(JOBS)")
	@$(MAKE) --no-print-directory study
	@$(MAKE) --no-print-directory report

WORKERS ?= 2

test: setup  ## run the test suite, in WORKERS processes (2) of one thread each
	OMP_NUM_THREADS=1 python -m pytest -n $(WORKERS) --dist loadgroup

test-long: setup  ## the test that takes 25 minutes: more labels, higher AP
	VLM_ITL_LONG_TESTS=1 python -m pytest -s tests/test_more_labels.py

EXAMPLES ?= 20000

fuzz: setup  ## random and half-valid input for every reader of foreign content, EXAMPLES (20000) each; memory is limited
	ulimit -v 16000000; VLM_ITL_FUZZ_EXAMPLES=$(EXAMPLES) OMP_NUM_THREADS=1 python -m pytest tests/test_fuzz.py -p no:cacheprovider --timeout 36000

lint: setup  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: setup  ## let ruff rewrite
	ruff check --fix .
	ruff format .

lock:  ## resolve requirements.in again
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url --quiet requirements.in -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url --quiet requirements-readers.in -o requirements-readers.lock
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url --quiet requirements-cluster.in -o requirements-cluster.lock

clean:  ## remove the environment and all outputs (DVC's cache stays)
	rm -rf $(VENV) .venv-readers artifacts loop scratch
