# Two commands are enough: `make demo` and `make test`. Each sets up what it needs and can be run again and again.

.DEFAULT_GOAL := help
.PHONY: help setup venv demo up down test cluster bench soak chaos lint format clean

PIPELINE = .venv/bin/pipeline
ARGS =

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: venv ## virtual environment and a RabbitMQ that answers
	@$(PIPELINE) broker start

demo: setup ## the main job: 10,000 orders through topology, workers, retries, dead letters
	@.venv/bin/python -m scripts.demo $(ARGS)

up: venv ## the whole picture on this machine: haproxy, gateways, relay, workers, databases, caches, RabbitMQ
	@.venv/bin/python -m scripts.up up $(ARGS)

down: venv ## end what `make up` started; its data stays in .pipeline/up
	@.venv/bin/python -m scripts.up down

test: venv ## everything that is checked, on a RabbitMQ of its own
	@scripts/test

cluster: venv ## three RabbitMQ nodes on this machine, killed one after another while events flow
	@.venv/bin/pytest -q -s tests/cluster

bench: setup ## how fast it is here
	@.venv/bin/python -m benchmarks $(ARGS)

soak: venv ## the main job for half an hour, while workers and the broker are killed
	@.venv/bin/python -m scripts.soak $(ARGS)

chaos: venv ## load through `make up` while each box is killed in turn, for minutes (ARGS="--minutes 10")
	@.venv/bin/python -m scripts.chaos $(ARGS)

lint: venv ## only format, lint, types and layers
	@scripts/test lint

format: venv ## put the sources in form
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

clean: ## stop the private node; remove its data, the virtual environment and caches
	@if [ -x $(PIPELINE) ]; then $(PIPELINE) broker stop; .venv/bin/python -m scripts.up down; fi
	rm -rf .pipeline .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find pipeline workers tests -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@scripts/venv
