# Each target is a line over the command lines that the README describes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet --no-emit-index-url

# Without byte code, importing TensorFlow takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY)  ## install everything into .venv (the other targets do it when needed)

# The lock names everything, so pip must resolve nothing: for an extra it would ignore the lock and take the newest versions.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --compile --no-deps --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)  ## run the whole pipeline on the sample data set, on this machine
	$(BIN)/python -m pipelines run

test: $(READY)  ## run the test suite (under 10 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY)  ## run the long tests too, but for those of test-clusters
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not cluster"

test-clusters: $(READY)  ## kill and restart the tasks of clusters (a quarter of an hour); tests/training/cluster_faults.py does more
	$(BIN)/python -m pytest -m cluster

beam: .venv-beam/.ready  ## install what builds on Apache Beam into .venv-beam, as it cannot share .venv

test-beam: .venv-beam/.ready  ## compare builds on Apache Beam with those on this machine
	.venv-beam/bin/python -m pytest -n 2 tests/build_tfrecords/test_beam.py tests/build_tfrecords/test_beam_processes.py tests/dataflow \
	  tests/benchmarks/test_beam_yardstick.py

.venv-beam/.ready: requirements/beam.txt requirements/test-beam.txt $(READY)
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/pip install --quiet --compile --no-deps --requirement requirements/beam.txt
	.venv-beam/bin/pip install --quiet --compile --no-deps --requirement requirements/test-beam.txt
	@touch $@

lint: $(READY)  ## ruff, mypy, the layers of imports, and whether generated parts are current
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && \
	  $(BIN)/python -m components.generate --check

audit:  ## ask a vulnerability service about everything that requirements/ pins
	PYTHON=$(PYTHON) .ci/audit

demo-schedule: $(READY)  ## four weeks of a scheduled retrain on this machine, as a table
	$(BIN)/python -m tests.standin.demo_schedule

demo-cluster: $(READY)  ## two workers train the sample, one is killed, the run finishes: a timeline, and build/demo-cluster.png
	$(BIN)/python -m tests.standin.demo_cluster build/demo-cluster.png

bench: $(READY)  ## measure speed, as ratios to yardsticks measured in the same run; ARGS="--images photos/ --pairs 5 build .."
	$(BIN)/python -m benchmarks $(ARGS)

compile: $(READY)  ## write build/image_classification.yaml for Kubeflow and Vertex, and its steps to build/components/
	$(BIN)/python -m pipelines compile --output build/image_classification.yaml --components_dir build/components

images:  ## build the container images; [REGISTRY=..] [TAG=..] [BASE=..] [PLATFORM=..] [RUN_AS=UID:GID] [IMAGES="train-gpu .."] [PUSH=1]
	$(PYTHON) -m images build $(IMAGES) $(REGISTRY:%=--registry %) $(TAG:%=--tag %) $(BASE:%=--base %) $(PLATFORM:%=--platform %) \
	  $(RUN_AS:%=--user %) $(if $(PUSH),--push)

pin:  ## renew the digests of the images that ours are built on and with; needs Docker with buildx, and a registry
	$(PYTHON) -m images pin

submit: $(READY)  ## start a run on Vertex AI or Kubeflow; ARGS="--project .. --location .. --pipeline_root gs://.. --train_metadata gs://.."
	$(BIN)/python -m pipelines submit $(ARGS)

schedule: $(READY)  ## schedule recurring runs; ARGS="create weekly --cron '0 3 * * 1' .."
	$(BIN)/python -m pipelines schedule $(ARGS)

generate: $(READY)  ## write component signatures, their READMEs and the tables of docs/ from the flag table and the networks
	$(BIN)/python -m components.generate && $(BIN)/ruff format --quiet components

lock: $(READY)  ## pin the requirements anew: dev.txt, and for the images the same versions
	$(LOCK) pyproject.toml --extra dev --output-file requirements/dev.txt
	$(LOCK) --group audit --constraint requirements/dev.txt --output-file requirements/audit.txt
	for environment in build train train-gpu vertex; do \
	  $(LOCK) pyproject.toml --extra $$environment $$([ $$environment != build ] || echo --extra heic) --extra kfp --extra s3 --constraint requirements/dev.txt --output-file requirements/$$environment.txt || exit; \
	done
	$(subst --universal,--python-platform linux,$(LOCK)) pyproject.toml --extra beam --extra heic --extra kfp --extra s3 --constraint requirements/build.txt --output-file requirements/beam.txt
	$(LOCK) --group test-beam --constraint requirements/beam.txt --output-file requirements/test-beam.txt

clean:  ## remove everything that was generated, runs included
	rm -rf build runs .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup run test test-all test-clusters beam test-beam lint audit demo-schedule demo-cluster bench compile images pin submit schedule generate lock clean
