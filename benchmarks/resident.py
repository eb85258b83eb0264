"""The resident memory of one process in bytes: `python -m benchmarks.resident KIND MODEL CACHE`.

KIND is int4 (the fast engine), transformers (bf16), or imports (the libraries of both alone). Each
answers once, so that memory that is mapped on first use is counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import torch
import transformers

from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.request import GenerationRequest, SamplingParams, collect

NEW_TOKENS = 16


def main() -> None:
    """Print the resident bytes."""
    kind, name, cache = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    base = resolve(name, cache)
    kept = ANSWER[kind](base, cache)
    print(psutil.Process().memory_info().rss)
    del kept


def _int4(base: BaseModel, cache: Path) -> object:
    engine = FastEngine(base, kernel_cache=cache / "kernels", quantization="int4")
    sampling = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS)
    collect(engine.submit(GenerationRequest((Message("user", "Hello"),), sampling)))
    return engine


def _transformers(base: BaseModel, _cache: Path) -> object:
    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.bfloat16)
    model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=NEW_TOKENS)
    return model


def _imports(_base: BaseModel, _cache: Path) -> object:
    return transformers.AutoModelForCausalLM, transformers.AutoTokenizer


ANSWER = {"int4": _int4, "transformers": _transformers, "imports": _imports}

if __name__ == "__main__":
    main()
