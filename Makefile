# Every target sets up what it needs. The environment lies in .venv; `make clean` takes it away.
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
BUILD := build/constraints
# Tests of clusters, whose processes want the machine for themselves.
CLUSTER := tests/stages/prepare/test_cluster.py tests/stages/score/test_cluster.py tests/stages/search/library/test_cluster.py

# The first of these that is Python 3.12 or newer; another one by name: make setup PYTHON=/path/to/python
PYTHONS := python3.12 python3 python3.13 python3.14 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 12))
PYTHON ?= $(shell for name in $(PYTHONS); do $$name -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$name && break; done)

.PHONY: setup python demo test test-slow test-extras test-gpu mutants lint bench bench-train bench-score bench-teaching real \
	constraints clean

setup: $(STAMP)

# The mark is set last and taken off first: an environment without it is half made and made anew.
$(STAMP): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory python
	@if [ -e $@ ]; then rm $@; else echo "$(PYTHON) -m venv $(VENV)"; $(PYTHON) -m venv --clear $(VENV); fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(NEW_ENOUGH)'; then \
		echo "teachclip needs Python 3.12 or newer; found: $(or $(PYTHON),none of $(PYTHONS))."; \
		echo "Install it, or name it: make setup PYTHON=/path/to/python3.12"; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: python3-venv)."; exit 1; }

demo: $(STAMP)
	$(BIN)/teachclip demo

# A file by one worker: what its tests share is made once.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow
	$(BIN)/python -m pytest -m slow $(CLUSTER)

# Tests that need an optional library: all of the extras are installed. `make test` runs them where they are present.
test-extras: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pytest -n 2 --dist loadfile -m extras
	$(BIN)/python -m pytest $(CLUSTER)

# One script with every CUDA test and one table at the end; without a GPU it says so and fails.
test-gpu: $(STAMP)
	$(BIN)/python tests/run_gpu.py

# By hand, an hour or more: breaks the code in small ways and shows what no test notices (docs/testing.md).
# One part of tests/mutants.toml by its name, 100 mutants of it: make mutants PART=losses SAMPLE=100
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[mutants]'
	$(BIN)/python tests/mutants.py $(PART) $(if $(SAMPLE),--sample $(SAMPLE))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p teachclip

LONG := benchmarks/real.py benchmarks/sparse_labels.py benchmarks/teaching.py benchmarks/blocks_learning.py benchmarks/training.py benchmarks/rerank.py \
	benchmarks/nothing_fits.py benchmarks/loss_gradients.py benchmarks/neighbour.py benchmarks/teachtext.py benchmarks/features.py \
	benchmarks/small_vectors.py benchmarks/cluster.py
bench: $(STAMP)
	@for script in $(filter-out $(LONG),$(wildcard benchmarks/[!_]*.py)); do \
		echo "$(BIN)/python $$script"; $(BIN)/python $$script || exit 1; done

# What teaching costs a step: some minutes on a CPU with a small trunk, ViT-B/32 where there is a GPU.
bench-train: $(STAMP)
	$(BIN)/python benchmarks/training.py

# Pairs a second of every teacher beside its published form and the machine's limits: two minutes; on a GPU where there is one.
bench-score: $(STAMP)
	$(BIN)/python benchmarks/pair_scores.py

# Eight draws with every control, the gain's curve, weights of the losses, and a store in blocks: several hours.
bench-teaching: $(STAMP)
	$(BIN)/python benchmarks/teaching.py draws
	$(BIN)/python benchmarks/teaching.py curve
	$(BIN)/python benchmarks/teaching.py weights
	$(BIN)/python benchmarks/blocks_learning.py

# Zero-shot CLIP on MSR-VTT-1k against the literature, then table 3: make real VIDEOS=... ANNOTATIONS=... [WEIGHTS=...]
real: $(STAMP)
	$(BIN)/python benchmarks/real.py $(if $(VIDEOS),--videos "$(VIDEOS)") $(if $(ANNOTATIONS),--annotations "$(ANNOTATIONS)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")

# Names and versions of everything that a fresh environment gets today; tests must pass before they are committed.
constraints: python
	rm -rf $(BUILD)
	$(PYTHON) -m venv $(BUILD)
	$(BUILD)/bin/python -m pip install --quiet '.[all,dev,mutants]'
	$(BUILD)/bin/python -m pip list --format=freeze --exclude teachclip --exclude pip > $(BUILD)/constraints.txt
	mv $(BUILD)/constraints.txt constraints.txt
	rm -rf build

clean:
	rm -rf $(VENV) build dist .typing/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
