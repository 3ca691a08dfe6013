PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-kafka test-crash test-faults lint types bench bench-quality bench-rivals bench-streams docs-check docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/installed  ## three minutes of real purchases through Kafka, learning as they come
	@$(BIN)/anabranch demo

test: .venv/installed  ## the whole default suite, on the embedded broker
	@$(BIN)/python -m pytest

test-kafka: .venv/installed  ## the broker tests, the slow ones too, on Apache Kafka: KAFKA_HOME, or testcontainers where Docker answers
	@$(BIN)/python -m pytest -m 'broker and not faults' --broker kafka

test-crash: .venv/installed  ## a thousand kills, then every sequence and edge against the log (hours; KILLS=100, BROKER=kafka)
	@$(BIN)/python -m tests.crash.kills --kills $(or $(KILLS),1000) --events $(or $(EVENTS),200000) --broker $(or $(BROKER),embedded)

test-faults: .venv/installed  ## brokers cut off, disks full, files damaged, workers coming and going (AWAY_S=600, MOVES=100)
	@AWAY_S=$(or $(AWAY_S),30) $(BIN)/python -m pytest -m faults
	@$(BIN)/python -m tests.crash.membership --moves $(or $(MOVES),100) --broker $(or $(BROKER),embedded)

lint: .venv/installed  ## ruff: style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/installed  ## mypy, strict
	@$(BIN)/mypy

bench: .venv/installed  ## figures beside their rivals, ratios first (installs the rivals)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]' -c requirements.lock
	@$(BIN)/python -m benchmarks.speed

bench-quality: .venv/installed  ## CREATE beside its rivals on recorded data (hours; QUICK=1: one seed, one data set)
	@$(BIN)/python -m benchmarks.quality.global_temporal $(if $(QUICK),--datasets amazon-beauty --seeds 1 --variants SASRec CREATE "SASRec + live graph" "CREATE + live graph") --out build/quality
	@$(BIN)/python -m benchmarks.quality.global_temporal_report build/quality

bench-rivals:  ## others' implementations on the same splits, in an environment of their own (hours)
	@test -x build/rivals/bin/python || $(PYTHON) -m venv build/rivals
	@build/rivals/bin/python -m pip install -q --disable-pip-version-check -e '.[rivals]' torch==2.13.0
	@for dataset in amazon-beauty amazon-sports; do build/rivals/bin/python -m benchmarks.rivals.outside --dataset $$dataset --factors 64 --session-events 20 --out build/outside || exit 1; done

bench-streams: .venv/installed  ## learning from a stream without forgetting, beside published rows (hours; QUICK=1: the first periods)
	@$(BIN)/python -m benchmarks.quality.periods $(if $(QUICK),--periods 4 --tests 1500) --out build/periods.jsonl
	@$(BIN)/python -m benchmarks.quality.prequential $(if $(QUICK),--streams complete-journey --events 10000 --no-retrain) --out build/prequential

docs-check: .venv/installed  ## every command, setting and path the docs name exists
	@$(BIN)/python -m pytest -q tests/test_docs.py

docs: .venv/installed  ## write the configuration page and sample from the settings
	@$(BIN)/python docs/write_configuration.py

clean:  ## remove the environment, caches and the demo's data
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis anabranch-data

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: name a newer one, make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@
