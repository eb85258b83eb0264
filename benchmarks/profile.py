"""Profiles a decoding step by operation.

The layers are called one by one instead of in one call, which adds some milliseconds a step
(`rest`); the time of the kernels is the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.fast import FastEngine
from engine.messages import Message
from engine.request import GenerationRequest, SamplingParams, collect

NEW_TOKENS = 64
KERNELS = {
    "linear_int4": "matrices of the layers",
    "linear_int8": "output head",
    "_attention": "attention",
    "_rotate_and_store": "rotary and cache",
    "_gated_silu": "activation",
    "_rms_norm": "norms",
}


def profile(engine: FastEngine, streams: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return milliseconds a step by operation, for each number of streams. Closes the engine."""
    engine.runner.decoder = replace(engine.runner.decoder, fused=None)
    native: Any = engine.runner.native
    if native is None:
        engine.close()
        return {}
    seconds: dict[str, float] = defaultdict(float)
    for name, meaning in KERNELS.items():
        setattr(native, name, _timed(getattr(native, name), seconds, meaning))
    loop: Any = engine.loop
    loop._sample_and_publish = _timed(loop._sample_and_publish, seconds, "choice, text")
    loop.runner.run = _timed(loop.runner.run, seconds, "forward")
    found = {}
    for count in streams:
        seconds.clear()
        sampling = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
        story = (Message("user", "Tell me a long story about a lighthouse."),)
        for stream in engine.submit_many([GenerationRequest(story, sampling)] * count):
            collect(stream)
        each = {meaning: 1e3 * spent / NEW_TOKENS for meaning, spent in seconds.items()}
        forward = each.pop("forward")
        each["rest"] = forward - sum(each[meaning] for meaning in KERNELS.values())
        found[f"{count} streams"] = {k: round(v, 2) for k, v in each.items()}
    engine.close()
    return found


def _timed(call: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        begun = time.perf_counter()
        result = call(*arguments)
        seconds[name] += time.perf_counter() - begun
        return result

    return timed
