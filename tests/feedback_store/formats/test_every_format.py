"""Every format finds its own records, and breaks at none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from feedback_store.formats import IMPORT_FORMATS
from tests.feedback_store.formats.helpers import (
    chat,
    detected,
    openai,
    preference,
    reply,
    said,
    sharegpt,
    tree,
    turns_in,
)


def _of_chatgpt(role: str, words: str) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [words]}
    return {"author": {"role": role}, "recipient": "all", "content": content}


VALID: dict[str, Any] = {
    "alpaca": {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]},
    "alpaca-preference": {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d"},
    "alpaca-unpaired": {"instruction": "a", "input": "b", "output": "c", "kto_tag": True},
    "chatgpt": {
        "title": "t",
        "create_time": 1.0,
        "update_time": 2.0,
        "current_node": "m2",
        "conversation_id": "c",
        "mapping": {
            "m1": {"message": _of_chatgpt("user", "a"), "parent": None, "children": ["m2"]},
            "m2": {"message": _of_chatgpt("assistant", "b"), "parent": "m1", "children": []},
        },
    },
    "csv": {"question": "a", "context": "[]", "completion": "b", "label": "true"},
    "gsm8k-solutions": {"question": "a", "m": {"is_correct": True, "solution": "b"}},
    "hh": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    "messages": {"messages": openai(*chat("a", "b"))},
    "messages-unpaired": {"messages": openai(*chat("a", "b")), "label": True},
    "oasst": tree(
        said("q", "a", reply("r", "b", rank=0, emojis={"+1": 1}), reply("s", "c", rank=1))
    ),
    "open-webui": {
        "type": "rating",
        "user_id": "u",
        "data": {"rating": 1, "reason": "other", "comment": "a", "details": {"rating": 8}},
        "meta": {"chat_id": "c", "message_id": "m2"},
        "snapshot": {
            "chat": {
                "chat": {
                    "params": {"system": "s"},
                    "history": {
                        "messages": {
                            "m1": {"id": "m1", "parentId": None, "role": "user", "content": "a"},
                            "m2": {
                                "id": "m2",
                                "parentId": "m1",
                                "role": "assistant",
                                "content": "b",
                            },
                        }
                    },
                }
            }
        },
    },
    "open-webui-chats": {
        "id": "c",
        "user_id": "u",
        "title": "t",
        "created_at": 1,
        "updated_at": 2,
        "chat": {
            "title": "t",
            "history": {
                "currentId": "m2",
                "messages": {
                    "m1": {"parentId": None, "role": "user", "content": "a", "timestamp": 1},
                    "m2": {"parentId": "m1", "role": "assistant", "content": "b"},
                },
            },
        },
    },
    "seed-tasks": {"instruction": "a", "instances": [{"input": "b", "output": "c"}]},
    "sharegpt": {"conversations": sharegpt(*chat("a", "b"))},
    "sharegpt-preference": {
        "conversations": sharegpt(*chat("a")),
        "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "c"},
    },
    "sharegpt-unpaired": {"conversations": sharegpt(*chat("a", "b")), "kto_tag": False},
    "trl-completion": {"prompt": "a", "completion": "b"},
    "trl-preference": preference(),
    "trl-unpaired": {"prompt": "a", "completion": "b", "label": False},
}
WRONG: tuple[Any, ...] = (
    None,
    True,
    7,
    -1,
    1.5,
    "",
    " ",
    "x",
    "\x00",
    "\ud800",
    [],
    {},
    [[]],
    [{}],
    {"x": []},
    [None],
    "[" * 2_000,
)


def broken(value: Any) -> Any:
    """The value with each of its parts, and itself, replaced by each wrong thing or left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: wrong} for wrong in broken(part))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], wrong, *value[place + 1 :]] for wrong in broken(part))
    yield from WRONG


def test_every_format_has_an_example_here() -> None:
    assert VALID.keys() == IMPORT_FORMATS.keys()


@pytest.mark.parametrize("name", VALID)
def test_a_valid_record_is_found_out(name: str, tmp_path: Path) -> None:
    assert detected(tmp_path, VALID[name]) == name


@pytest.mark.parametrize("name", VALID)
def test_a_record_that_is_wrong_somewhere_is_read_or_refused_but_never_breaks(
    name: str, tmp_path: Path
) -> None:
    rows = [json.dumps(row) for row in broken(VALID[name])]
    assert len(rows) > 40
    with pytest.raises(InvalidInput) as refusal:
        turns_in(tmp_path, *rows, format=name)
    assert "line " in str(refusal.value)
    for row in map(json.loads, rows):
        if isinstance(row, dict):
            IMPORT_FORMATS[name].matches(row)
