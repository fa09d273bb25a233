PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
OUT ?= report.json
PEERS ?= gpuhunt==0.1.34 skypilot==0.14.1
CASES ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo test faults soak test-extras lint format proto proto-baseline check-generated accuracy bench peers image lock clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

install: $(STAMP) ## make .venv with the locked dependencies

demo: $(STAMP) ## rank real offers for a full fine-tune of Llama-3-8B, no credentials needed
	$(BIN)/sizewright recommend examples/llama3-8b-sft.yaml

test: $(STAMP) ## run the whole test suite
	$(BIN)/python -m pytest -q

faults: $(STAMP) ## the long drills: broken requests, sources, files, processes; plans against brute force
	$(BIN)/python -m pytest -q -m "long or not long" tests/faults tests/server/test_draining.py
	$(BIN)/python -m pytest -q -m long tests/integrity

soak: $(STAMP) ## the long load run; SOAK_SECONDS=600 for ten minutes
	$(BIN)/python -m pytest -q -s -m "long or not long" tests/soak

test-extras: $(STAMP) ## run the tests that need torch, transformers and other tools (gigabytes)
	$(PYTHON) -m venv .venv-traces
	.venv-traces/bin/python -m pip install --quiet 'torch==2.13.0' 'transformers==5.23.0' peft
	.venv-traces/bin/python -m pip install --quiet --requirement requirements.lock
	.venv-traces/bin/python -m pip install --quiet --no-deps --editable .
	.venv-traces/bin/python -m pytest -q tests/extras/test_traces_again.py
	$(PYTHON) -m venv .venv-extras
	.venv-extras/bin/python -m pip install --quiet 'torch==2.13.0'
	.venv-extras/bin/python -m pip install --quiet --requirement tests/extras/requirements.txt
	.venv-extras/bin/python -m pip install --quiet --no-deps --requirement tests/extras/engines.txt
	.venv-extras/bin/python -m pip install --quiet --requirement requirements.lock
	.venv-extras/bin/python -m pip install --quiet --no-deps --editable .
	.venv-extras/bin/python -m pytest -q tests/extras/test_exports_in_their_tools.py

lint: $(STAMP) ## ruff, mypy, import contracts, buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf breaking --against baseline.binpb

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP) ## write proto/gen from proto/sizewright
	$(BIN)/python proto/generate.py proto/gen

proto-baseline: $(STAMP) ## take today's contract as the one not to break
	cd proto && ../$(BIN)/buf build -o baseline.binpb

check-generated: $(STAMP) ## fail when proto/gen is not what proto/sizewright gives
	rm -rf .generated && $(BIN)/python proto/generate.py .generated
	diff --recursive --exclude=__pycache__ proto/gen .generated
	rm -rf .generated

accuracy: $(STAMP) ## score the estimator: make accuracy CASES="a.jsonl b.jsonl" OUT=report.json
	$(BIN)/python -m tests.accuracy $(CASES) --out $(OUT)

bench: $(STAMP) ## measure speed and memory: make bench OUT=bench.json
	$(MAKE) peers || echo "the peers do not install here; their figures are left out"
	$(BIN)/python -m tests.bench --out $(OUT)

peers: .venv-peers/.installed ## install what make bench compares with, apart from everything else

.venv-peers/.installed:
	$(PYTHON) -m venv .venv-peers
	for peer in $(PEERS); do \
	  .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $$peer || \
	    echo "$$peer does not install here; its figures are left out"; \
	done
	touch $@

image: ## run the Dockerfile's build steps in a clean virtual environment
	PYTHON=$(PYTHON) docker/build.sh .venv-image

lock: $(STAMP) ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-header --no-emit-index-url --group dev pyproject.toml --output-file requirements.lock

clean: ## remove what was built
	rm -rf .venv .venv-extras .venv-peers dist build .generated
