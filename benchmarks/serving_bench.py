"""Shared parts of the serving benchmarks: engines, figures, timings in turns, and prompts."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.quantization import Quantization
from engine.request import GenerationRequest, SamplingParams, collect

NEW_TOKENS = 64
RANK = 16  # of an adapter


@dataclass(frozen=True, slots=True)
class Bench:
    """The shared inputs of every measurement."""

    base: BaseModel
    kernel_cache: Path
    rounds: int
    threads: int
    peers: bool
    figures: dict[str, Any] = field(default_factory=dict)

    def engine(self, quantization: Quantization, **settings: Any) -> FastEngine:
        """Return a new engine."""
        return FastEngine(
            self.base, kernel_cache=self.kernel_cache, quantization=quantization, **settings
        )

    def tell(self, name: str, asked: str, reached: float, *, met: bool, **behind: Any) -> None:
        """Record a figure and print it."""
        self.figures[name] = {"asked": asked, "reached": reached, "met": met, **behind}
        print(f"{name}: {reached:.3g} (asked {asked})", file=sys.stderr, flush=True)


def in_turns(measured: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each; they alternate `rounds` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        for name, measure in measured.items():
            found = measure()
            if number:
                seconds[name].append(found)
    return {name: statistics.median(found) for name, found in seconds.items()}


def writer(
    engine: FastEngine,
    messages: Sequence[tuple[Message, ...]],
    *,
    new_tokens: int = NEW_TOKENS,
    adapters: Sequence[str] = (),
    temperature: float = 0,
) -> Callable[[], float]:
    """Return a function that times concurrent streams; adapters are assigned round-robin."""

    def write() -> float:
        requests = [
            GenerationRequest(
                each,
                SamplingParams(
                    temperature=temperature, max_new_tokens=new_tokens, ignore_eos=True, seed=n
                ),
                adapters[n % len(adapters)] if adapters else None,
            )
            for n, each in enumerate(messages)
        ]
        begun = time.perf_counter()
        for stream in engine.submit_many(requests):
            collect(stream)
        return time.perf_counter() - begun

    return write


def story(number: int) -> tuple[Message, ...]:
    """Return a short question, a different one for each number."""
    return (Message("user", f"Tell me a long story about lighthouse number {number}."),)


def prompt_of(engine: FastEngine, tokens: int, salt: int = 0) -> tuple[Message, ...]:
    """Return a prompt of exactly `tokens` tokens, or one more."""
    words = f"{salt} Read this list and say which word is the odd one out:"
    message = (Message("user", words),)
    while engine.count_prompt_tokens(message) < tokens:
        missing = tokens - engine.count_prompt_tokens(message)
        words += " stone" * max(1, missing)
        message = (Message("user", words),)
    return message
