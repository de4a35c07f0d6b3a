# The same words here and in CI. `make demo` and `make test` do all of their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test test-gpu chaos fuzz check format sandbox-models bench-teacher bench-lm bench-selection reproduce choosing real docs clean

demo: $(READY)  ## BRIDGE and direct distillation at the same 5 % budget, offline
	$(BIN)/bridgekd demo --folder demo

test: check  ## everything that must hold, one worker a core, one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

test-gpu: $(READY)  ## what runs on a CUDA device, beside the same on the CPU; everything here is skipped without one
	$(BIN)/pytest -m gpu -rs

chaos: $(READY)  ## 200 kills of a purchase at random and at the worst moments, with a summary
	CHAOS_KILLS=200 $(BIN)/pytest -s --timeout=1800 tests/test_chaos.py

fuzz: $(READY)  ## 10,000 damaged recipes and data files: no traceback, no hang, none misread (10 minutes)
	$(BIN)/python tools/fuzz_inputs.py --n 10000

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sandbox-models: $(READY)  ## train the base models of the sandbox again (about an hour)
	$(BIN)/python tools/sandbox_models/train_base_models.py

bench-teacher: $(READY)  ## calls a second against a slow or throttling teacher, with peers (10 minutes)
	$(BIN)/python benchmarks/teacher.py

# torch first and by itself, so that nothing else pulls in another one
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[local,dev]'
	touch $(READY)

bench-lm: $(READY)  ## training, generation and scoring side by side with what one would take instead (an hour)
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/training.py

bench-selection: $(READY)  ## seconds, memory and worth of a choice, with peers (half an hour)
	$(BIN)/python benchmarks/selection.py

reproduce: $(READY)  ## the papers' claims into docs and README: five seeds, about five hours on two cores, goes on; QUICK=1: one seed, twenty minutes, prints only
	$(BIN)/python benchmarks/reproduce.py $(if $(QUICK),--quick,--write)

choosing: $(READY)  ## what choosing buys in the sandbox, into docs: strategies, budgets, TA-in-the-Loop (three hours; goes on)
	$(BIN)/python benchmarks/reproduce.py strategies loop --write

real: $(READY)  ## real questions, pretrained models, recorded teachers, into benchmarks/real/results; TASK=svamp: one task; goes on (one to two hours a task and seed on one core)
	$(if $(BRIDGEKD_MODELS),,$(error BRIDGEKD_MODELS names no folder of pretrained models; see benchmarks/README.md))
	$(BIN)/python benchmarks/real/compare_methods.py $(TASK)

docs: $(READY)  ## the documentation as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## what the demo made; the virtual environment stays
	rm -rf demo demo-quick
