"""Each format that others write means here what it means there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.messages import Message
from tests.feedback_store.formats.helpers import (
    chat,
    demonstrated,
    detected,
    openai,
    preference,
    preferred,
    refused,
    set_aside,
    sharegpt,
    turns_in,
    votes_of,
)

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
