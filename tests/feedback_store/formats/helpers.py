"""A store that only listens, and short ways to write files for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from feedback_store.formats import import_file
from feedback_store.records import ImportedTurn


class Listener:
    """Keeps what it is given, as a store would: all, or nothing if the giving fails."""

    def __init__(self) -> None:
        self.turns: list[ImportedTurn] = []
        self.importers: set[str] = set()

    def add_imported(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str, /
    ) -> int:
        taken = list(turns)
        self.turns += taken
        self.importers.add(user_id)
        return len(taken)


def lines(path: Path, *rows: Any) -> Path:
    """Rows as JSON lines; a row that is text is written as it is."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts), "utf-8", newline="")
    return path


def array(path: Path, *rows: Any) -> Path:
    """Rows as one JSON array."""
    path.write_text(json.dumps(rows), "utf-8")
    return path


def turns_of(path: Path, **options: Any) -> list[ImportedTurn]:
    """What importing a file gives to the store."""
    listener = Listener()
    import_file(listener, path, **options)
    return listener.turns


def turns_in(tmp_path: Path, *rows: Any, **options: Any) -> list[ImportedTurn]:
    """What importing these rows gives to the store."""
    return turns_of(lines(tmp_path / "rows.jsonl", *rows), **options)


def chat(*said: str, system: str = "") -> tuple[Message, ...]:
    """Messages of a user and an assistant, in turn."""
    head = (Message("system", system),) if system else ()
    return head + tuple(
        Message("assistant" if place % 2 else "user", text) for place, text in enumerate(said)
    )


def openai(*messages: Message) -> list[dict[str, str]]:
    """As TRL and OpenAI write messages."""
    return [message.as_dict() for message in messages]


def sharegpt(*messages: Message) -> list[dict[str, str]]:
    """As ShareGPT writes messages."""
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[m.role], "value": m.content} for m in messages]


def votes_of(turn: ImportedTurn) -> list[tuple[str, list[tuple[str, int]]]]:
    """Each answer's text with who voted how."""
    return [(a.text, [(v.user, v.vote) for v in a.votes]) for a in turn.answers]


def preferred(turn: ImportedTurn) -> tuple[str, str, str]:
    """The better text, the worse one and who says so, of a turn with one choice and no votes."""
    (choice,) = turn.choices
    assert (choice.choice, [a.votes for a in turn.answers]) == ("left", [(), ()])
    return turn.answers[choice.left].text, turn.answers[choice.right].text, choice.user


def preference(question: str = "Why?", chosen: str = "Because.", rejected: str = "No.") -> Any:
    """A pair as TRL writes it."""
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def said(identity: str, text: str, *replies: Any, role: str = "prompter", **more: Any) -> Any:
    """A message of an OASST tree."""
    return {"message_id": identity, "role": role, "text": text, "replies": list(replies), **more}


def reply(identity: str, text: str, *replies: Any, **more: Any) -> Any:
    """An answer in an OASST tree."""
    return said(identity, text, *replies, role="assistant", **more)


def tree(prompt: Any) -> Any:
    """An OASST tree."""
    return {"message_tree_id": "tree", "tree_state": "ready_for_export", "prompt": prompt}


def refused(tmp_path: Path, row: Any, reason: str, **options: Any) -> None:
    """That this row is not imported, and why."""
    with pytest.raises(InvalidInput, match=reason):
        turns_in(tmp_path, row, **options)


def detected(tmp_path: Path, row: Any) -> str:
    return import_file(Listener(), lines(tmp_path / "row", row)).format


def demonstrated(turns: list[ImportedTurn]) -> list[tuple[tuple[Message, ...], str]]:
    """Prompts and answers; each answer must have one thumb up and nothing else."""
    for turn in turns:
        assert [[(v.user, v.vote) for v in a.votes] for a in turn.answers] == [[("import", 1)]]
    return [(turn.prompt, turn.answers[0].text) for turn in turns]


def set_aside(tmp_path: Path, *rows: Any) -> tuple[int, Any]:
    """How many turns came in, and why how many records did not."""
    report = import_file(Listener(), lines(tmp_path / "rows", *rows))
    return report.turns, report.set_aside


ANSWERED = {"instruction": "Why?", "output": "Because."}


def refusal(path: Path, **options: Any) -> str:
    """Why a file is not imported; nothing of it may have reached the store."""
    listener = Listener()
    with pytest.raises(InvalidInput) as refused:
        import_file(listener, path, **options)
    assert not listener.turns
    return str(refused.value).removeprefix(f"{path.name}: ")


def problems(path: Path, **options: Any) -> list[str]:
    return refusal(path, **options).split("; ")
