"""The prompts that the operator shares with everybody, in a file beside the examples."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from engine.errors import InvalidInput
from engine.yaml_files import read_yaml
from feedback_store.personal.own_prompts import PromptKind, PromptText


def default_prompts_text() -> str:
    """Return the text of the file in a new home."""
    return resources.files("app").joinpath("prompts.yaml").read_text("utf-8")


def read_prompts(path: Path) -> tuple[PromptText, ...]:
    """Read the prompts of a YAML file; raises `InvalidInput` that lists every problem."""
    lists = read_yaml(path, f"the prompts in {path.name}") or {}
    kinds: tuple[PromptKind, ...] = get_args(PromptKind)
    if not isinstance(lists, dict) or not set(lists) <= set(kinds):
        raise InvalidInput(f"{path.name}: expected the lists {' and '.join(kinds)}")
    found = [prompt for kind in kinds for prompt in _prompts(kind, lists.get(kind))]
    problems = [problem for problem in found if isinstance(problem, str)]
    if problems:
        raise InvalidInput(f"{path.name}: " + "; ".join(problems))
    return tuple(prompt for prompt in found if isinstance(prompt, PromptText))


def _prompts(kind: PromptKind, entries: Any) -> Iterator[PromptText | str]:
    """Yield each prompt of one kind, or the problem with it as a text."""
    if entries is None:
        return
    if not isinstance(entries, list):
        yield f"{kind} must be a list"
        return
    for number, entry in enumerate(entries, start=1):
        if (
            not isinstance(entry, dict)
            or set(entry) != {"title", "text"}
            or not all(isinstance(said, str) for said in entry.values())
        ):
            yield f"{kind} {number} must have exactly title and text"
            continue
        try:
            yield PromptText(kind, entry["title"].strip(), entry["text"].strip()).checked()
        except InvalidInput as error:
            yield f"{kind} {number}: {error}"
