"""Decoding speed of the reference engine beside plain `transformers.generate`, and why the number
format was chosen. `python -m benchmarks.serving --json`: one document, the last line of stdout.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.reference import ReferenceEngine
from engine.request import GenerationRequest, SamplingParams, collect

NEW_TOKENS = 32
ROUNDS = 3
PROMPT = (Message("user", "Tell me a long story about a lighthouse."),)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    base = resolve("embedded", arguments.model_cache)
    figures = {
        "engine_tokens_per_second": {},
        "transformers_generate_tokens_per_second": [],
        **_dtype_steps(base),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(detect().dtype),
        "versions": {n: importlib.metadata.version(n) for n in ("torch", "transformers")},
    }
    _decode(base, figures)
    if arguments.json:
        print(json.dumps(figures))
    else:
        json.dump(figures, sys.stdout, indent=2)


def _decode(base: BaseModel, figures: dict[str, Any]) -> None:
    """Engine and peer in turn, so that both meet the same noise; medians and their ratio."""
    engine = ReferenceEngine(base)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=detect().dtype)
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    rates: dict[int, list[float]] = {rows: [] for rows in (1, 4, 8, 16)}
    peer: list[float] = []
    for _ in range(ROUNDS):
        peer.append(_generate(model, tokenizer))
        for rows, found in rates.items():
            found.append(_engine(engine, rows))
    engine.close()
    baseline = statistics.median(peer)
    medians = {rows: statistics.median(found) for rows, found in rates.items()}
    figures["engine_tokens_per_second"] = medians
    figures["transformers_generate_tokens_per_second"] = baseline
    figures["ratio"] = {rows: rate / baseline for rows, rate in medians.items()}


def _engine(engine: ReferenceEngine, rows: int) -> float:
    sampling = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    begun = time.perf_counter()
    for stream in engine.submit_many([GenerationRequest(PROMPT, sampling)] * rows):
        collect(stream)
    return rows * NEW_TOKENS / (time.perf_counter() - begun)


def _generate(model: Any, tokenizer: Any) -> float:
    inputs = tokenizer.apply_chat_template(
        [m.as_dict() for m in PROMPT], add_generation_prompt=True, return_tensors="pt"
    )
    begun = time.perf_counter()
    model.generate(**inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
    return NEW_TOKENS / (time.perf_counter() - begun)


def _dtype_steps(base: BaseModel) -> dict[str, dict[str, float]]:
    """Seconds for a forward pass of 64 tokens, in each number format."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype)
        ids = torch.arange(64)[None]
        with torch.inference_mode():
            model(ids)
            times = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                model(ids)
                times.append(time.perf_counter() - begun)
        seconds[str(dtype).removeprefix("torch.")] = statistics.median(times)
    return {"seconds_for_64_tokens": seconds}


if __name__ == "__main__":
    main()
