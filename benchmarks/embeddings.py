"""The retrieval of answers by embeddings, measured: `python -m benchmarks.embeddings --json`.

Each question is asked for its own answer among all answers of its set, by the cosine of embeddings
and by BM25: GSM8K (a question and its solution share names and numbers) and OASST (a first question
and the best answer of a person). Recall@k is the part of the questions whose own answer is among
the first k. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from platformdirs import user_cache_path

from engine.fast import FastEngine
from engine.hardware import processor_name
from engine.models.catalogue import resolve
from engine.prompts.terms import tokens
from engine.request import EmbeddingRequest
from engine.start import kernel_cache

Pairs = Sequence[tuple[str, str]]  # of a question and its answer
Scores = np.ndarray[tuple[int, int], np.dtype[np.float32]]  # (questions, answers)
EACH = 300
MOST_CHARS = 4_000  # fits the context
RANKS = (1, 5, 10)


def main() -> None:
    """Run the benchmark and print its document."""
    arguments = _arguments()
    base = resolve(arguments.model, arguments.model_cache)
    engine = FastEngine(
        base, quantization=arguments.quantization, kernel_cache=kernel_cache(arguments.model_cache)
    )
    document: dict[str, Any] = {
        "model": base.name,
        "quantization": arguments.quantization,
        "processor": processor_name(),
    }
    try:
        for name, read in DATA_SETS.items():
            try:
                pairs = list(read(arguments.data))
            except FileNotFoundError as error:
                document[name] = f"skipped: it needs {error.filename}"
            else:
                document[name] = measure(engine, pairs)
            print(f"{name:8} {document[name]}", flush=True)
    finally:
        engine.close()
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def measure(engine: FastEngine, pairs: Pairs) -> dict[str, Any]:
    """Recall of embeddings and of BM25 over one set of pairs, and the speed of embedding."""
    begun = time.perf_counter()
    found = engine.embed([EmbeddingRequest(text) for pair in pairs for text in pair])
    seconds = time.perf_counter() - begun
    vectors = np.array([each.vector for each in found], dtype=np.float32)
    questions, answers = vectors[::2], vectors[1::2]
    return {
        "pairs": len(pairs),
        "embeddings": recall(questions @ answers.T),
        # The same vectors without what all of them share (Mu & Viswanath 2018, without components)
        "embeddings, centred": recall(_centred(questions) @ _centred(answers).T),
        "bm25": recall(bm25_scores(pairs)),
        "tokens_per_second": round(sum(each.prompt_tokens for each in found) / seconds),
    }


def recall(scores: Scores) -> dict[str, float]:
    """Recall@k, where question i belongs to answer i; an equal score counts as better."""
    own = np.diagonal(scores)[:, None]
    rank = (scores >= own).sum(axis=1)
    return {f"recall@{k}": round(float((rank <= k).mean()), 3) for k in RANKS}


def bm25_scores(pairs: Pairs) -> Scores:
    """BM25 of each question over all answers; a question of function words alone has 0 with all."""
    index = bm25s.BM25()
    index.index([tokens(answer) for _, answer in pairs], show_progress=False)
    scores: Scores = np.zeros((len(pairs), len(pairs)), dtype=np.float32)
    for row, (question, _) in enumerate(pairs):
        if asked := tokens(question):
            scores[row] = index.get_scores(asked)
    return scores


def _centred(vectors: Scores) -> Scores:
    rest = vectors - vectors.mean(axis=0)
    scaled: Scores = rest / np.linalg.norm(rest, axis=1, keepdims=True)
    return scaled


def _gsm8k(data: Path) -> Iterator[tuple[str, str]]:
    for line in (data / "gsm8k_train_1000.jsonl").read_text("utf-8").splitlines()[:EACH]:
        record = json.loads(line)
        yield record["question"], record["answer"]


def _oasst(data: Path) -> Iterator[tuple[str, str]]:
    for line in (data / "oasst_trees_dev.jsonl").read_text("utf-8").splitlines():
        first = json.loads(line)["prompt"]
        answers = [reply for reply in first["replies"] if reply.get("rank") is not None]
        best = min(answers, key=lambda reply: int(reply["rank"]), default=None)
        if best is not None and max(len(first["text"]), len(best["text"])) <= MOST_CHARS:
            yield first["text"], best["text"]


DATA_SETS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    "gsm8k": _gsm8k,
    "oasst": _oasst,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    parser.add_argument("--quantization", choices=("none", "int8", "int4"), default="int4")
    return parser.parse_args()


if __name__ == "__main__":
    main()
