# `make demo` and `make test` need Python 3.11 or later, pip and make, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-fast docs lint bench bench-gpu clean

demo: $(INSTALLED)
	$(BIN)/selfdistill compare recipes/quick/digits.yaml methods=baseline,frskd seeds=3 out=runs/demo

# One thread a process: the networks are tiny, and threads that wait for each other cost more than they bring. Bytecode is
# kept whatever the shell says: some tests start processes that import torch.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow" --ignore tests/slow

# The documentation as a site, in build/site.
docs: $(INSTALLED)
	$(BIN)/zensical build --clean --strict

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Ten minutes on two cores; a page of benchmarks/results, continued where it stopped.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py

# Correctness, step times and a comparison on one GPU: make bench-gpu DATA=/my/cifar10, with MINUTES=9 in slices.
DATA ?= torchvision:CIFAR10
MINUTES ?= 1440
bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/on_gpu.py --data $(DATA) --minutes $(MINUTES)

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs build
