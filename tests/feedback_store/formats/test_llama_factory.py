"""LLaMA-Factory's layouts, as its data/README.md has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from tests.feedback_store.formats.helpers import (
    chat,
    demonstrated,
    openai,
    preferred,
    set_aside,
    sharegpt,
    turns_in,
    votes_of,
)

QUESTION = {
    "instruction": "Spell.",
    "input": "2",
    "system": "Be brief.",
    "history": [["Hi", "Yes"]],
}
ASKED = chat("Hi", "Yes", "Spell.\n2", system="Be brief.")


def test_an_alpaca_preference_is_a_pair(tmp_path: Path) -> None:
    row = {**QUESTION, "chosen": "two", "rejected": "2"}
    (turn,) = turns_in(tmp_path, row)
    assert (turn.prompt, preferred(turn)) == (ASKED, ("two", "2", "import"))


@pytest.mark.parametrize("key", ["kto_tag", "label"])
@pytest.mark.parametrize("good", [True, False])
def test_a_tag_is_a_thumb_in_every_layout(key: str, good: bool, tmp_path: Path) -> None:
    said = chat("One?", "1", "Two?", "5")
    thumb = [("import", 1 if good else -1)]
    alpaca = {**QUESTION, "output": "two", key: good}
    (turn,) = turns_in(tmp_path, alpaca)
    assert (turn.prompt, votes_of(turn)) == (ASKED, [("two", thumb)])
    for row in (
        {"conversations": sharegpt(*said), key: good},
        {"conversations": openai(*said), key: good},
        {"messages": openai(*said), key: good},
        {"prompt": openai(*said[:-1]), "completion": openai(said[-1]), key: good},
    ):
        (turn,) = turns_in(tmp_path, row)
        assert (turn.prompt, votes_of(turn)) == (said[:3], [("5", thumb)])


@pytest.mark.parametrize("column", ["conversations", "messages"])
@pytest.mark.parametrize("spell", [sharegpt, openai])
def test_the_names_of_columns_and_roles_may_be_either(
    column: str, spell: Any, tmp_path: Path
) -> None:
    said = chat("One?", "1", "Two?", "2", system="Count.")
    turns = turns_in(tmp_path, {column: spell(*said)})
    assert demonstrated(turns) == [(said[:2], "1"), (said[:4], "2")]
    (better,), (worse,) = spell(Message("assistant", "2")), spell(Message("assistant", "5"))
    row = {column: spell(*said[1:4]), "chosen": better, "rejected": worse, "system": "Count."}
    (turn,) = turns_in(tmp_path, row)
    assert (turn.prompt, preferred(turn)) == (said[:4], ("2", "5", "import"))


PLAIN = {"conversations": sharegpt(*chat("What is it?", "A cat."))}


@pytest.mark.parametrize("column", ["images", "image", "videos", "audios"])
def test_what_holds_pictures_videos_or_sounds_is_set_aside(column: str, tmp_path: Path) -> None:
    shown = {"conversations": sharegpt(*chat("<image>What is it?", "A cat.")), column: ["a.jpg"]}
    nothing = PLAIN | {column: []}
    assert set_aside(tmp_path, shown, nothing, PLAIN) == (2, {"pictures, videos or sounds": 1})


def test_parts_of_text_are_joined_and_a_picture_among_them_sets_the_record_aside(
    tmp_path: Path,
) -> None:
    parts: list[Any] = [{"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}]
    answer = {"role": "assistant", "content": "A cat."}
    row = {"messages": [{"role": "user", "content": parts}, answer]}
    (turn,) = turns_in(tmp_path, row)
    assert turn.prompt == chat("What\nis it?")
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    shown = {"messages": [{"role": "user", "content": [*parts, picture]}, answer]}
    assert set_aside(tmp_path, row, shown) == (1, {"pictures, videos or sounds": 1})


@pytest.mark.parametrize(
    "between",
    [
        [{"from": "function_call", "value": "{}"}, {"from": "observation", "value": "7"}],
        [{"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}],
        [{"role": "tool", "content": "7"}],
    ],
)
def test_a_conversation_with_a_tool_is_set_aside(between: Any, tmp_path: Path) -> None:
    first, *rest = sharegpt(*chat("What is it?", "A cat."))
    row = {"conversations": [first, *between, *rest]}
    assert set_aside(tmp_path, PLAIN, row) == (1, {"an answer that uses tools": 1})
    offered = PLAIN | {"tools": '[{"name": "look"}]'}
    none = PLAIN | {"tools": "[]"}
    assert set_aside(tmp_path, none, offered) == (1, {"a prompt that offers tools": 1})


def test_a_file_of_which_nothing_can_be_learnt_is_refused_and_says_why(tmp_path: Path) -> None:
    row = PLAIN | {"images": ["a.jpg"]}
    with pytest.raises(InvalidInput, match=r"no record to learn from: pictures.* \(2\)"):
        turns_in(tmp_path, row, row)
