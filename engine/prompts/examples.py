"""The pool of worked examples: a file that the operator edits. Knows nothing of templates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from engine.errors import InvalidInput
from engine.messages import require_text
from engine.yaml_files import read_yaml

SHOWN = 3  # worked examples of a prompt: as many as the shipped file has


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its answer and, for chain-of-thought prompts, the thought between them."""

    question: str
    answer: str
    thought: str


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read the examples of a YAML file; raises `InvalidInput` with every problem in it."""
    entries = read_yaml(path, f"the examples in {path.name}")
    return _parse(entries, path.name)


def default_examples_text() -> str:
    """The text of the examples file of a new home."""
    return resources.files("engine.prompts").joinpath("examples.yaml").read_text("utf-8")


def default_examples() -> tuple[Example, ...]:
    """The examples of a new home."""
    return _parse(yaml.safe_load(default_examples_text()), "examples.yaml")


def _parse(entries: Any, source: str) -> tuple[Example, ...]:
    if not isinstance(entries, list) or not entries:
        raise InvalidInput(f"{source}: expected a list of examples")
    problems = list(_problems(entries))
    if problems:
        raise InvalidInput(f"{source}: " + "; ".join(problems))
    return tuple(
        Example(*(entry[key].strip() for key in ("question", "answer", "thought")))
        for entry in entries
    )


def _problems(entries: list[Any]) -> Iterable[str]:
    keys = {"question", "answer", "thought"}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) != keys:
            yield f"example {number} must have exactly question, thought and answer"
            continue
        for key in sorted(keys):
            if not isinstance(entry[key], str):
                yield f"example {number}: {key} must be text"
                continue
            try:
                require_text(entry[key], what=key)
            except InvalidInput as error:
                yield f"example {number}: {error}"
