"""The cost in perplexity of each weight format: `python -m benchmarks.perplexity --json`.

The benchmark scores 200 answers that people wrote (100 of OASST, 100 of GSM8K), each after its
question in the model's chat format, with the engine's `score`. Perplexity is e to the mean negative
log-probability of an answer's token. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from engine.fast import FastEngine
from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.quantization import Quantization
from engine.request import ScoreRequest

EACH = 100
MOST_CHARS = 2_000
WAYS: dict[str, tuple[Quantization, bool]] = {
    "none": ("none", True),
    "int8": ("int8", True),
    "int4": ("int4", True),
    "int8 from dense weights": ("int8", False),
    "int4 from dense weights": ("int4", False),
}


def main() -> None:
    """Run the benchmark and print its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    base = resolve(arguments.model, arguments.model_cache)
    texts = [*_gsm8k(arguments.data), *_oasst(arguments.data)]
    rows: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        rows[way] = _measure(base, arguments.model_cache / "kernels", way, texts)
        change = rows[way]["perplexity"] / rows["none"]["perplexity"] - 1
        rows[way]["change_percent"] = 100 * change
        print(f"{way:24} {rows[way]}", flush=True)
    document = {
        "texts": len(texts),
        "model": base.name,
        "dense_dtype": str(detect().dtype),
        "ways": rows,
    }
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def _measure(
    base: BaseModel, kernel_cache: Path, way: str, texts: list[ScoreRequest]
) -> dict[str, Any]:
    quantization, carried_over = WAYS[way]
    engine = FastEngine(
        base if carried_over else replace(base, gguf=None),
        kernel_cache=kernel_cache,
        quantization=quantization,
    )
    scores = engine.score(texts)
    logprobs = torch.tensor([p for score in scores for p in score.token_logprobs])
    weight_bytes = engine.weight_bytes
    engine.close()
    return {
        "perplexity": math.exp(-logprobs.double().mean()),
        "tokens": len(logprobs),
        "weight_bytes": weight_bytes,
    }


def _gsm8k(data: Path) -> Iterator[ScoreRequest]:
    lines = (data / "gsm8k_train_1000.jsonl").read_text("utf-8").splitlines()
    for line in lines[:EACH]:
        record = json.loads(line)
        yield ScoreRequest((Message("user", record["question"]),), record["answer"])


def _oasst(data: Path) -> Iterator[ScoreRequest]:
    """Yield the best-ranked answer to each tree's first question, if it is short enough."""
    found = 0
    for line in (data / "oasst_trees_dev.jsonl").read_text("utf-8").splitlines():
        for question, answer in _pairs(json.loads(line)["prompt"]):
            if len(question) + len(answer) <= MOST_CHARS and found < EACH:
                found += 1
                yield ScoreRequest((Message("user", question),), answer)


def _pairs(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) for each assistant's answer to a first question."""
    for reply in message.get("replies", ()):
        if message["role"] == "prompter" and reply["role"] == "assistant":
            yield message["text"], reply["text"]
        yield from _pairs(reply)


if __name__ == "__main__":
    main()
