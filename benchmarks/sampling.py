"""The time to choose a token: `python -m benchmarks.sampling` prints microseconds.

Rows of random logits, as wide as the embedded model's vocabulary, go through the sampler and
through the calls of torch that it might use instead. Each figure is the lower quartile of
`--repeats` calls on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from engine.hardware import processor_name
from engine.request import SamplingParams
from engine.serving.sampler import Sampler, draw, most_likely

VOCABULARY = 49_152
SPREAD = 3.0  # standard deviation of the logits


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    microseconds = {name: _microseconds(call, repeats) for name, call in calls().items()}
    print(json.dumps({"microseconds": microseconds, "processor": processor_name()}, indent=2))


def calls() -> dict[str, Callable[[], object]]:
    """The calls that are timed, by their names."""
    generator = torch.Generator().manual_seed(0)
    logits = SPREAD * torch.randn(VOCABULARY, generator=generator)
    weights = logits.softmax(-1)
    whole, nucleus = (Sampler(SamplingParams(top_p=top_p)) for top_p in (1.0, 0.95))
    return {
        "a token, top_p 1": lambda: whole(logits, []),
        "a token, top_p 0.95": lambda: nucleus(logits, []),
        "the likeliest": lambda: most_likely(logits[None]),
        "the likeliest, by torch.argmax": lambda: logits.argmax(),
        "a draw": lambda: draw(weights, generator),
        "a draw, by torch.multinomial": lambda: weights.multinomial(1, generator=generator),
        "256 likeliest, by torch.topk": lambda: weights.topk(256),
    }


def _microseconds(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return round(1e6 * float(np.quantile(seconds, 0.25)), 1)


if __name__ == "__main__":
    main()
