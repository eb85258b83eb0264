"""Each format that others write means here what it means there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from feedback_store.formats import IMPORT_FORMATS, import_file
from feedback_store.records import ImportedTurn
from tests.feedback_store.formats.helpers import (
    Listener,
    chat,
    lines,
    openai,
    preference,
    preferred,
    refused,
    reply,
    said,
    sharegpt,
    tree,
    turns_in,
    votes_of,
)


def detected(tmp_path: Path, row: Any) -> str:
    return import_file(Listener(), lines(tmp_path / "row", row)).format


def demonstrated(turns: list[ImportedTurn]) -> list[tuple[tuple[Message, ...], str]]:
    """Prompts and answers; each answer must have one thumb up and nothing else."""
    for turn in turns:
        assert [[(v.user, v.vote) for v in a.votes] for a in turn.answers] == [[("import", 1)]]
    return [(turn.prompt, turn.answers[0].text) for turn in turns]


# Alpaca


def test_the_input_of_an_alpaca_record_follows_its_instruction(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "Haus", "output": "house"},
        {"instruction": "Hello!", "input": "", "output": "Hi!"},
        {"instruction": "Hello?", "output": "Yes?", "system": "Be brief.", "history": []},
    ]
    assert demonstrated(turns_in(tmp_path, *rows)) == [
        (chat("Translate.\nHaus"), "house"),
        (chat("Hello!"), "Hi!"),
        (chat("Hello?", system="Be brief."), "Yes?"),
    ]
    assert detected(tmp_path, rows[0]) == "alpaca"


def test_answers_in_the_history_of_an_alpaca_record_are_demonstrations_too(tmp_path: Path) -> None:
    row = {"instruction": "Three?", "output": "3", "history": [["One?", "1"], ["Two?", "2"]]}
    turns = turns_in(tmp_path, row)
    assert demonstrated(turns) == [
        (chat("One?"), "1"),
        (chat("One?", "1", "Two?"), "2"),
        (chat("One?", "1", "Two?", "2", "Three?"), "3"),
    ]
    refused(tmp_path, row | {"history": [["One?"]]}, "must hold")


def test_instances_of_a_seed_task_share_a_conversation(tmp_path: Path) -> None:
    instances = [{"input": "2", "output": "two"}, {"input": "", "output": "none"}]
    row = {"id": "seed_task_0", "instruction": "Spell.", "instances": instances}
    turns = turns_in(tmp_path, row)
    assert demonstrated(turns) == [(chat("Spell.\n2"), "two"), (chat("Spell."), "none")]
    assert turns[0].conversation == turns[1].conversation != ""
    refused(tmp_path, row | {"instances": []}, "empty")


# ShareGPT


def test_each_answer_of_a_conversation_is_a_demonstration_with_what_went_before(
    tmp_path: Path,
) -> None:
    said = chat("One?", "1", "Two?", "2", system="Count.")
    turns = turns_in(tmp_path, {"conversations": sharegpt(*said)})
    assert demonstrated(turns) == [(said[:2], "1"), (said[:4], "2")]
    assert turns[0].conversation == turns[1].conversation != ""
    with_system = {"system": "Count.", "conversations": sharegpt(*said[1:])}
    assert turns_in(tmp_path, with_system) == turns  # the same texts, the same conversation
    other = turns_in(tmp_path, {"conversations": sharegpt(*chat("One?", "1", "Two?", "3"))})
    assert other[0].conversation != turns[0].conversation


def test_one_question_is_grouped_by_its_prompt(tmp_path: Path) -> None:
    """So that the same question with two answers never falls on both sides of a split."""
    (turn,) = turns_in(tmp_path, {"conversations": sharegpt(*chat("One?", "1"))})
    assert turn.conversation == ""


def test_a_greeting_before_anybody_asked_is_no_demonstration(tmp_path: Path) -> None:
    said = (Message("assistant", "Hello!"), *chat("One?", "1"))
    assert demonstrated(turns_in(tmp_path, {"conversations": sharegpt(*said)})) == [(said[:2], "1")]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (chat("One?", "1", "Two?"), "must end with an assistant message"),
        ((*chat("One?", "1"), Message("assistant", "2")), "must end with a user message"),
        ((Message("assistant", "Hello!"),), "no user message"),
        (chat("One?", " "), "answer is empty"),
        (chat("\u200b", "1"), "question is empty"),
        ((), "must end with an assistant message"),
    ],
)
def test_a_conversation_that_demonstrates_nothing_is_refused(
    said: tuple[Message, ...], reason: str, tmp_path: Path
) -> None:
    refused(tmp_path, {"conversations": sharegpt(*said)}, reason)


def test_roles_that_are_not_known_are_named(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi"}, {"from": "robot", "value": "Beep."}]
    refused(tmp_path, {"conversations": said}, "'robot'.*user, assistant, human, gpt")


def test_a_preference_in_sharegpt_spelling_is_a_pair(tmp_path: Path) -> None:
    said = chat("One?", "1", "Two?", system="Count.")
    row = {
        "conversations": sharegpt(*said),
        "chosen": {"from": "gpt", "value": "2"},
        "rejected": {"from": "gpt", "value": "5"},
    }
    (turn,) = turns_in(tmp_path, row, user="ann")
    assert (turn.prompt, preferred(turn)) == (said, ("2", "5", "ann"))
    assert detected(tmp_path, row) == "sharegpt-preference"
    refused(tmp_path, row | {"chosen": {"from": "human", "value": "2"}}, "one assistant message")


# TRL


@pytest.mark.parametrize(
    "row",
    [
        preference(),
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": "Why?", **{key: preference()[key] for key in ("chosen", "rejected")}},
        {"chosen": openai(*chat("Why?", "Because.")), "rejected": openai(*chat("Why?", "No."))},
        {
            "prompt": "Why?",  # as in UltraFeedback: the conversations hold it too
            "chosen": openai(*chat("Why?", "Because.")),
            "rejected": openai(*chat("Why?", "No.")),
        },
    ],
)
def test_the_spellings_of_a_preference_mean_the_same(row: Any, tmp_path: Path) -> None:
    (turn,) = turns_in(tmp_path, row)
    assert turn.prompt == chat("Why?")
    assert preferred(turn) == ("Because.", "No.", "import")
    assert detected(tmp_path, row) == "trl-preference"


def test_the_shared_beginning_of_two_conversations_is_the_prompt(tmp_path: Path) -> None:
    said = chat("One?", "1", "Two?", system="Count.")
    chosen, rejected = (openai(*said, Message("assistant", text)) for text in ("2", "5"))
    (turn,) = turns_in(tmp_path, {"chosen": chosen, "rejected": rejected})
    assert (turn.prompt, [a.text for a in turn.answers]) == (said, ["2", "5"])
    (same,) = turns_in(tmp_path, {"chosen": chosen, "rejected": chosen})
    assert [a.text for a in same.answers] == ["2", "2"]  # pairing sets it aside, with the reason
    refused(tmp_path, {"chosen": chosen, "rejected": openai(*chat("A?", "B"))}, "same prompt")
    refused(tmp_path, {"chosen": chosen, "rejected": rejected[:3]}, "one assistant message")


@pytest.mark.parametrize("label", [True, False])
def test_a_label_is_a_thumb(label: bool, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Why?", "completion": "Because.", "label": label},
        {
            "prompt": openai(*chat("Why?")),
            "completion": [{"role": "assistant", "content": "Because."}],
            "label": label,
        },
    ]
    for turn in turns_in(tmp_path, *rows):
        assert turn.prompt == chat("Why?")
        assert votes_of(turn) == [("Because.", [("import", 1 if label else -1)])]
    for wrong in ("true", 1, None):
        refused(tmp_path, rows[0] | {"label": wrong}, "'label' must be true or false")


def test_a_label_on_a_conversation_judges_its_last_answer_alone(tmp_path: Path) -> None:
    said = chat("One?", "1", "Two?", "5")
    (turn,) = turns_in(tmp_path, {"messages": openai(*said), "label": False})
    assert (turn.prompt, votes_of(turn)) == (said[:3], [("5", [("import", -1)])])


def test_messages_and_completions_are_demonstrations(tmp_path: Path) -> None:
    said = chat("One?", "1", "Two?", "2")
    turns = turns_in(tmp_path, {"messages": openai(*said)})
    assert demonstrated(turns) == [(said[:1], "1"), (said[:3], "2")]
    for prompt in ("One?", openai(*chat("One?"))):
        (turn,) = turns_in(tmp_path, {"prompt": prompt, "completion": "1"})
        assert demonstrated([turn]) == [(chat("One?"), "1")]


# Thoughts

THOUGHT = "<think>\nHm.\n</think>"


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "<think>Hm.</think>\n\nBecause."},
        {"role": "assistant", "content": "Hm.\n</think>\n\nBecause."},  # R1's prompt began it
        {"role": "assistant", "content": "Because.", "reasoning_content": "Hm."},
        {"role": "assistant", "content": "Because.", "reasoning": "Hm."},
        {"role": "assistant", "content": "Because.", "thinking": "\nHm.\n"},
        {"from": "gpt", "value": "<think>\nHm.\n</think>\n\nBecause."},
    ],
)
def test_a_thought_is_kept_apart_and_not_shown_again(answer: Any, tmp_path: Path) -> None:
    question = {"role": "user", "content": "<think>Why</think>?"}
    first, second = turns_in(tmp_path, {"messages": [question, answer, question, answer]})
    for turn in (first, second):
        (said,) = turn.answers
        assert (said.thought, said.text) == (THOUGHT, "Because.")
    asked = "<think>Why</think>?"
    assert second.prompt == chat(asked, "Because.", asked)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Why?", "output": f"{THOUGHT}\n\nBecause."},
        {"prompt": "Why?", "completion": f"{THOUGHT}\n\nBecause."},
        {"prompt": "Why?", "completion": f"{THOUGHT}Because.", "label": True},
        {"prompt": "Why?", "chosen": f"{THOUGHT}Because.", "rejected": "No."},
        {"instruction": "Why?", "instances": [{"output": f"{THOUGHT}\n\nBecause."}]},
        {"question": "Why?", "m": {"is_correct": True, "solution": f"{THOUGHT}\n\nBecause."}},
    ],
)
def test_every_format_tells_thought_and_answer_apart(row: Any, tmp_path: Path) -> None:
    (turn,) = turns_in(tmp_path, row)
    assert (turn.answers[0].thought, turn.answers[0].text) == (THOUGHT, "Because.")


def test_an_answer_that_ends_within_its_thought_is_set_aside(tmp_path: Path) -> None:
    rows = [{"instruction": "Why?", "output": said} for said in ("<think>Hm.", "Because.")]
    assert set_aside(tmp_path, *rows) == (1, {"an answer that ends within its thought": 1})


# LLaMA-Factory's other layouts, as its data/README.md has them

QUESTION = {
    "instruction": "Spell.",
    "input": "2",
    "system": "Be brief.",
    "history": [["Hi", "Yes"]],
}
ASKED = chat("Hi", "Yes", "Spell.\n2", system="Be brief.")


def set_aside(tmp_path: Path, *rows: Any) -> tuple[int, Any]:
    """How many turns came in, and why how many records did not."""
    report = import_file(Listener(), lines(tmp_path / "rows", *rows))
    return report.turns, report.set_aside


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


# HH


def test_transcripts_are_split_where_they_part(tmp_path: Path) -> None:
    shared = "\n\nHuman: One?\n\nAssistant: 1\n\nHuman: Two?\nQuick!\n\nAssistant:"
    row = {"chosen": f"{shared} 2\n\nor so", "rejected": f"{shared} 5"}
    (turn,) = turns_in(tmp_path, row)
    assert turn.prompt == chat("One?", "1", "Two?\nQuick!")
    assert preferred(turn) == ("2\n\nor so", "5", "import")
    assert detected(tmp_path, row) == "hh"
    refused(tmp_path, row | {"rejected": shared}, "answer is empty")
    refused(tmp_path, row | {"rejected": "\n\nHuman: A?\n\nAssistant: B"}, "one assistant|differ")
    refused(tmp_path, row | {"rejected": "5"}, "must begin with")
    parted = row["rejected"].replace("One?", "Eleven?")
    refused(tmp_path, row | {"rejected": parted}, "differ before their last answer")


# GSM8K


def test_a_solution_known_right_is_a_thumb_up(tmp_path: Path) -> None:
    row = {
        "question": "2 + 2?",
        "ground_truth": "4",
        "small": {"is_correct": False, "solution": "5"},
        "large": {"is_correct": True, "solution": "4"},
    }
    (turn,) = turns_in(tmp_path, row)
    assert turn.prompt == chat("2 + 2?")
    assert votes_of(turn) == [("5", [("gsm8k-checker", -1)]), ("4", [("gsm8k-checker", 1)])]
    assert [answer.model for answer in turn.answers] == ["small", "large"]
    refused(tmp_path, row | {"large": {"is_correct": 1, "solution": "4"}}, "true or false")


# Any format


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
