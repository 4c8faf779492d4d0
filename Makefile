# binvpr_ros: `make demo` and `make test` work on a fresh machine and need nothing but a Python and the package registries.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The Larq Compute Engine has wheels for CPython up to 3.12; tflite-runtime, one of the two runtimes, up to 3.11.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
RUN := $(VENV)/bin
ORACLE := .venv-lce
# On two cores; tests that start nodes stay in one process.
PYTEST := $(RUN)/python -m pytest -n 2 --dist loadgroup --durations=20
PACKAGING := setup.py setup.cfg pyproject.toml $(wildcard binvpr_ros/lce_delegate/src/*)

.DEFAULT_GOAL := help
.PHONY: help demo demo-fleet check test test-all load kill fuzz soak aarch64 oracle wheels docs lint format parameters clean

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed  ## run the node end to end on a rendered world, or on IMAGES=<folder, video or bag> (TOPIC=...)
	@$(RUN)/python -m binvpr_ros.lab.demo $(if $(IMAGES),"$(IMAGES)") $(if $(TOPIC),--image-topic "$(TOPIC)")

demo-fleet: $(VENV)/.installed-fleet  ## two nodes that share a map on a PostgreSQL, and find each other
	@$(RUN)/python -m binvpr_ros.lab.fleet_demo

check: $(VENV)/.installed-check  ## ruff, mypy and the tests of the core: two minutes
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(PYTEST) -m "not long" test/*.py test/network test/local_features test/maps test/recordings

test: $(VENV)/.installed-test lint oracle  ## style, types, and all tests but the longest: ten minutes
	$(PYTEST) -m "not long"

test-all: test  ## and the longest: the whole grids of operators, sanitizers, fuzzing, nodes that are killed
	$(PYTEST) -m long

load: $(VENV)/.installed  ## put a 60 Hz 1920x1080 camera before a node of about 10 Hz, and print figures
	$(RUN)/python -m binvpr_ros.lab.load

kill: $(VENV)/.installed-test  ## kill a node that writes its map, RUNS times (200), and see that the map lost nothing; SEED=1
	KILL_RUNS=$(or $(RUNS),200) KILL_SEED=$(or $(SEED),1) $(RUN)/python -m pytest -s test/maps/test_kill.py

fuzz: $(VENV)/.installed-test  ## feed damaged input to every reader of foreign files and messages, SECONDS (60) for each; SEED=1
	PYTHONPATH=test $(RUN)/python -m fuzz --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

soak: $(VENV)/.installed-test  ## a million images, and HOURS (8) of recording through the node: hours, and no growth
	SOAK_IMAGES=$(or $(IMAGES),1000000) SOAK_HOURS=$(or $(HOURS),8) $(RUN)/python -m pytest -s test/ros/test_soak.py

aarch64: $(VENV)/.installed-test  ## run the delegate's tests and a replay on ARM64, under QEMU (Debian, x86-64)
	.ci/aarch64-tests

oracle: $(ORACLE)/.installed  ## the Larq Compute Engine's own interpreter, in an environment of its own: it needs NumPy < 2

wheels: $(VENV)/.installed  ## wheels for x86-64 and ARM64, into dist
	PYTHON=$(RUN)/python .ci/wheels dist

docs: $(VENV)/.installed  ## build the documentation as a site, into build/docs
	@$(RUN)/python -m pip install --quiet --editable '.[docs]'
	@$(RUN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "docs: build/docs/index.html"

lint: $(VENV)/.installed-test  ## ruff and mypy alone
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

parameters: $(VENV)/.installed  ## write config/binvpr.yaml and docs/parameters.md from binvpr_ros/config.py
	$(RUN)/python .ci/parameters.py

format: $(VENV)/.installed-test  ## put the code into its standard format
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

$(VENV)/.installed: $(PACKAGING)
	@test -n "$(PYTHON)" || { echo "No CPython 3.11 or 3.12 was found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --editable '.[ros,tools]'
	@touch $@

$(VENV)/.installed-fleet: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --editable '.[ros,tools,fleet_demo]'
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --editable '.[ros,tools,slam,fleet_demo,test]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-check
	$(RUN)/python -m pip install --quiet --editable '.[ros,tools,slam,fleet_demo,training,baselines,view,test]'
	# The oracle of the quantizers, which asks for an older NumPy than it needs.
	$(RUN)/python -m pip install --quiet --no-deps larq==0.14.0 tf-keras==2.21.0 terminaltables
	# The fuzzer, which has wheels for some systems only; without it its tests skip.
	$(RUN)/python -m pip install --quiet --only-binary atheris 'atheris>=3' || true
	@touch $@

$(ORACLE)/.installed: Makefile
	@test -x $(ORACLE)/bin/python || $(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --upgrade pip
	$(ORACLE)/bin/python -m pip install --quiet 'numpy<2' 'larq-compute-engine>=0.16' \
		'tflite-runtime>=2.14; python_version < "3.12"'
	@touch $@

clean:  ## remove the environment and what was built
	rm -rf $(VENV) $(ORACLE) build dist install log *.egg-info binvpr_ros/lce_delegate/*.so
