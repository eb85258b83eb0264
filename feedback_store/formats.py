"""Preference pairs in and out of files: TRL's conversational format, one JSON object a line.

A file is read whole before anything is stored; all problems are collected with their line numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import BurnishError, InvalidInput
from engine.messages import messages_from_dicts, require_text
from engine.prompts.modes import PromptTemplate
from engine.storage import canonical_json, write_atomically
from feedback_store.pairing import Pair
from feedback_store.records import JudgedPair
from feedback_store.store import FeedbackStore

IMPORTED = PromptTemplate("plain", "", "", ())  # imported prompts come as they are
IMPORT_USER = "import"
MAX_PROBLEMS_SHOWN = 20


def import_preferences(store: FeedbackStore, file: Path) -> int:
    """Store each pair as a turn with two answers and opposite votes; returns how many.

    Raises `InvalidInput` with every problem and its line, and then nothing is stored.
    """
    pairs, problems = [], []
    for number, line in _lines(file):
        try:
            pairs.append(_parse(line))
        except (BurnishError, KeyError, TypeError, ValueError, RecursionError) as error:
            problems.append(f"line {number}: {_reason(error)}")
    if problems:
        shown = "; ".join(problems[:MAX_PROBLEMS_SHOWN])
        more = len(problems) - MAX_PROBLEMS_SHOWN
        raise InvalidInput(f"{file.name}: {shown}" + (f"; and {more} more" if more > 0 else ""))
    store.add_judged_pairs(pairs, IMPORTED, IMPORT_USER)
    return len(pairs)


def export_preferences(pairs: Sequence[Pair], file: Path) -> int:
    """Write pairs; the file must not exist. Returns how many."""
    if file.exists():
        raise InvalidInput(f"{file} exists already")
    write_atomically(file, b"".join(canonical_json(pair.as_trl()) + b"\n" for pair in pairs))
    return len(pairs)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {file}: {error}") from error


def _parse(line: str) -> JudgedPair:
    row: Any = json.loads(line)
    prompt = messages_from_dicts(row["prompt"])
    if not prompt or prompt[-1].role != "user":
        raise InvalidInput("prompt must end with a user message")
    return JudgedPair(
        prompt,
        better=_completion(row["chosen"]),
        worse=_completion(row["rejected"]),
        better_complete=bool(row.get("chosen_complete", True)),
        worse_complete=bool(row.get("rejected_complete", True)),
    )


def _completion(messages: Any) -> str:
    parsed = messages_from_dicts(messages)
    if len(parsed) != 1 or parsed[0].role != "assistant":
        raise InvalidInput("chosen and rejected must be one assistant message each")
    return require_text(parsed[0].content, what="answer")


def _reason(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error)
