# The verbs of Glasshouse; `make help` lists them. Each sets up first what it needs and installs nothing the second time.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) .ci/setup.py $(if $(GPU),--gpu)

# A log of one's own gets a home of its own, so that it never mixes with the demo's traffic.
ifdef LOG
export GLASSHOUSE_HOME ?= build/demo-$(firstword $(subst ., ,$(notdir $(LOG))))
else
export GLASSHOUSE_HOME ?= build/demo
endif

# Some machines ask Python to keep no compiled files: every process of a run would then compile the whole project anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo up down notebook test test-fast lock bench-backfill bench-collisions bench-fresh bench-generator bench-gpu gpu-wheels bench-label bench-labeler bench-metrics bench-ranker bench-serving bench-sql chaos chaos-backfill chaos-metrics fuzz ladder clean chaos-hostile

help:  ## this list
	@echo 'Glasshouse. On a fresh machine `make demo` and `make test` are all it takes.'
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18 | sed 's/^/  make /'
	@echo 'Settings: GPU=1 installs CUDA builds; `.venv/bin/glasshouse settings` lists the GLASSHOUSE_* variables.'

setup:  ## install everything into .venv (done by the other verbs too)
	@$(SETUP)

demo: setup  ## the whole line, from traffic (or LOG=FILE MAPPING=FILE) to a model and the pages' numbers
	@$(BIN)/glasshouse demo $(if $(LOG),--log $(LOG)) $(if $(MAPPING),--mapping $(MAPPING)) $(DEMO_ARGS)

up: setup  ## everything to live with, kept up: ClickHouse, live labeler on traffic, Dagster, Streamlit; Ctrl-C stops all
	@exec $(BIN)/glasshouse up

down: setup  ## end what the home has running, whoever started it
	@$(BIN)/glasshouse down

notebook: setup  ## JupyterLab with SQL cells on the lake and on ClickHouse
	@exec $(BIN)/glasshouse notebook

test:  ## every test, on the real engines (sets up Chromium too)
	@$(SETUP) --browser
	@$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: setup  ## the tests that need no engine, under a minute
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m 'not slow' $(PYTEST_ARGS)

lock: setup  ## write the exact versions anew from pyproject.toml
	@$(PYTHON) .ci/setup.py --lock

bench-generator: setup  ## events a second of the traffic generator
	@$(BIN)/python benchmarks/generator.py

bench-label: setup  ## `glasshouse label` on a million events, and the fold alone
	@$(BIN)/python benchmarks/labeler_cli.py

bench-labeler: setup  ## the live labeler beside Flink and Spark's join on one log of 21 million events (half an hour; installs Flink apart)
	@$(BIN)/python -m benchmarks.labeler $(BENCH_ARGS)

chaos: setup  ## 200 kills of the live labeler and other faults, the rows compared with the rules' reference (a quarter of an hour)
	@$(BIN)/python -m tests.chaos.live $(CHAOS_ARGS)

chaos-backfill: setup  ## 100 kills of plan, apply and undo under a reader of Delta and ClickHouse (a quarter of an hour)
	@$(BIN)/python -m tests.chaos.backfill $(CHAOS_ARGS)

chaos-metrics: setup  ## 100 kills of ClickHouse and of what loads it, then every row and aggregate compared with Delta (a quarter of an hour)
	@$(BIN)/python -m tests.chaos.metrics $(CHAOS_ARGS)

fuzz: setup  ## a million rows that nobody sends on purpose, by every way in and in every format (20 minutes)
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

chaos-hostile:  ## what a hostile page, client, file, clock or signal does to what `make up` starts, here and on 82b1db2 (three quarters of an hour; sets up Chromium too)
	@$(SETUP) --browser
	@$(BIN)/python -m tests.chaos.hostile $(CHAOS_ARGS)

bench-metrics: setup  ## 100 million events into ClickHouse, every board's query, freshness (half an hour the first time)
	@$(BIN)/python -m benchmarks.metrics $(BENCH_ARGS)

bench-backfill: setup  ## a range of 21 million events labeled anew: glasshouse, one pass of polars, Flink (half an hour; installs Flink apart)
	@$(BIN)/python -m benchmarks.backfill $(BENCH_ARGS)

bench-collisions: setup  ## managed ids beside hashing into the same memory: collisions, AUC, speed (some minutes)
	@$(BIN)/python -m benchmarks.collisions $(BENCH_ARGS)

bench-fresh: setup  ## AUC against the age of the model, late labels, seconds from closed samples to a version (some minutes)
	@$(BIN)/python -m benchmarks.freshness $(BENCH_ARGS)

bench-ranker: setup  ## samples a second of the ranker beside plain PyTorch, and where the time goes
	@$(BIN)/python -m benchmarks.ranker $(BENCH_ARGS)

bench-gpu: $(if $(GPU_WHEELS),,setup)  ## the ranker and a Criteo-like model on a GPU beside the CPU (5 minutes); without one a small dry run. GPU_WHEELS=FOLDER: on a machine without network
	@$(if $(GPU_WHEELS),$(PYTHON),$(BIN)/python) -m benchmarks.gpu $(if $(GPU_WHEELS),--wheels $(GPU_WHEELS)) $(BENCH_ARGS)

gpu-wheels: setup  ## the folder of wheels for it, fbgemm-gpu pruned to one GPU architecture (BENCH_ARGS="--capability 9.0")
	@$(BIN)/python -m benchmarks.gpu.wheels $(BENCH_ARGS)

bench-sql: setup  ## every SQL job on Spark and on the embedded engine, 2 and 20 million events: seconds, memory, the same rows (an hour; BENCH_ARGS="--events 2000000": ten minutes)
	@$(BIN)/python -m benchmarks.sql $(BENCH_ARGS)

ladder: setup  ## popularity, regression, trees and the ranker on the same samples, beside the truth
	@$(BIN)/python -m benchmarks.ladder $(LADDER_ARGS)

bench-serving: setup  ## a feed request of 500 notes scored on one core, on the demo's ranker: p50, p99
	@$(BIN)/python -m benchmarks.ranker_serving $(BENCH_ARGS)

clean:  ## remove build/ (the demo's lake, reports, screenshots); .venv stays
	rm -rf build
