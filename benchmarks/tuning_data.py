"""Pairs for the tuning benchmarks: real ones if the data folder exists, else synthetic ones.

The readers accept exactly the files named here. The engine's renderer turns texts into token ids.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.messages import Message, Role
from engine.prompts.render import Renderer

MAX_TOKENS = 1024
Texts = tuple[tuple[Message, ...], str, str]  # prompt, chosen, rejected
SHAREGPT_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


def pairs(name: str, renderer: Renderer) -> tuple[str, list[dict[str, list[int]]]]:
    """Return (source, rows in a fixed random order); rows over 1,024 tokens are left out."""
    folder = Path(os.environ.get("BURNISH_TEST_DATA", "../shared/data"))
    file, read = SETS[name]
    path = folder / file
    texts = list(read(path)) if path.is_file() else list(_made_up(name))
    rows = [_tokenized(renderer, *text) for text in texts]
    rows = [row for row in rows if _longest(row) <= MAX_TOKENS]
    random.Random(0).shuffle(rows)
    return (file if path.is_file() else f"made up, in the shape of {name}"), rows


def gsm8k(path: Path) -> Iterator[Texts]:
    """Yield pairs of a right and a wrong solution of one question."""
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        solutions = [value for value in record.values() if isinstance(value, dict)]
        right = [s["solution"] for s in solutions if s["is_correct"]]
        wrong = [s["solution"] for s in solutions if not s["is_correct"]]
        prompt = (Message("user", record["question"]),)
        yield from ((prompt, chosen, rejected) for chosen in right for rejected in wrong)


def oasst(path: Path) -> Iterator[Texts]:
    """Yield pairs of answers with adjacent ranks."""
    for line in path.read_text("utf-8").splitlines():
        yield from _ranked(json.loads(line)["prompt"], ())


def long(path: Path) -> Iterator[Texts]:
    """Yield conversations of more than one turn."""
    for record in json.loads(path.read_text("utf-8")):
        turns = record["conversations"]
        if len(turns) > 1:
            prompt = tuple(Message(SHAREGPT_ROLES[t["from"]], t["value"]) for t in turns)
            yield prompt, record["chosen"]["value"], record["rejected"]["value"]


SETS: dict[str, tuple[str, Callable[[Path], Iterator[Texts]]]] = {
    "gsm8k": ("gsm8k_solutions_dev600.jsonl", gsm8k),
    "oasst": ("oasst_trees_dev.jsonl", oasst),
    "long": ("llamafactory_dpo_en_demo.json", long),
}
# Words of prompt, chosen and rejected that give about the mean token counts of the real sets
MADE_UP_WORDS = {"gsm8k": (70, 95, 95), "oasst": (110, 150, 115), "long": (165, 175, 230)}


def _ranked(node: dict[str, Any], before: tuple[Message, ...]) -> Iterator[Texts]:
    role: Role = "assistant" if node["role"] == "assistant" else "user"
    prompt = (*before, Message(role, node["text"]))
    answers = [
        reply
        for reply in node["replies"]
        if reply["role"] == "assistant" and reply.get("rank") is not None
    ]
    answers.sort(key=lambda answer: int(answer["rank"]))
    for better, worse in itertools.pairwise(answers):
        yield prompt, better["text"], worse["text"]
    for reply in node["replies"]:
        yield from _ranked(reply, prompt)


def _made_up(name: str) -> Iterator[Texts]:
    chance = random.Random(1)
    words = ("stone", "river", "lamp", "over", "under", "seven", "red", "walks", "sings", "because")

    def text(mean: int) -> str:
        length = max(3, round(chance.lognormvariate(0, 0.5) * mean))
        return " ".join(chance.choices(words, k=length))

    for _ in range(200):
        prompt, chosen, rejected = (text(mean) for mean in MADE_UP_WORDS[name])
        yield (Message("user", prompt),), chosen, rejected


def _tokenized(
    renderer: Renderer, prompt: tuple[Message, ...], chosen: str, rejected: str
) -> dict[str, list[int]]:
    prompt_ids, opening = renderer.opened_prompt(prompt)
    return {
        "prompt_ids": list(prompt_ids),
        "chosen_ids": list(renderer.completion(chosen, opening=opening)),
        "rejected_ids": list(renderer.completion(rejected, opening=opening)),
    }


def _longest(row: dict[str, list[int]]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
