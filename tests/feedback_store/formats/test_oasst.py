"""Trees of OpenAssistant: thumbs, ranks and flags, each where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.feedback_store.formats.helpers import (
    chat,
    refused,
    reply,
    said,
    tree,
    turns_in,
    votes_of,
)


def test_each_answered_question_of_a_tree_is_a_turn_with_its_path(tmp_path: Path) -> None:
    row = tree(
        said(
            "q",
            "One?",
            reply("a", "1", said("b", "Two?", reply("c", "2"), reply("d", "3"))),
            reply("e", "uno", said("f", "Nobody answers.")),
        )
    )
    turns = turns_in(tmp_path, row)
    assert [(t.prompt, [a.text for a in t.answers]) for t in turns] == [
        (chat("One?"), ["1", "uno"]),
        (chat("One?", "1", "Two?"), ["2", "3"]),
    ]
    assert {turn.conversation for turn in turns} == {"tree"}


def test_each_thumb_of_a_tree_is_a_person_of_its_own(tmp_path: Path) -> None:
    answers = [reply("a", "1", emojis={"+1": 2, "-1": 1}), reply("b", "2", emojis={"-1": 1})]
    (turn,) = turns_in(tmp_path, tree(said("q", "One?", *answers)))
    assert votes_of(turn) == [
        ("1", [("oasst-a-up-1", 1), ("oasst-a-up-2", 1), ("oasst-a-down-1", -1)]),
        ("2", [("oasst-b-down-1", -1)]),
    ]
    flood = tree(said("q", "One?", reply("a", "1", emojis={"+1": 10**9})))
    refused(tmp_path, flood, "whole number from 0 to 10,000")


def test_ranks_become_choices_between_all_or_between_neighbours(tmp_path: Path) -> None:
    """Places 0, 1, 2 hold ranks 2, 0, 1: the best stands at place 1, the worst at place 0."""
    answers = [reply(str(rank), f"rank {rank}", rank=rank) for rank in (2, 0, 1)]
    row = tree(said("q", "One?", *answers))
    for ranks, pairs in (("all", [(1, 2), (1, 0), (2, 0)]), ("adjacent", [(1, 2), (2, 0)])):
        (turn,) = turns_in(tmp_path, row, ranks=ranks)
        assert [(c.left, c.right) for c in turn.choices] == pairs
        assert {(c.user, c.choice) for c in turn.choices} == {("oasst-ranking", "left")}


def test_answers_without_all_ranks_give_votes_but_no_choices(tmp_path: Path) -> None:
    answers = [reply("a", "1", rank=0, emojis={"+1": 1}), reply("b", "2")]
    (turn,) = turns_in(tmp_path, tree(said("q", "One?", *answers)))
    assert (turn.choices, votes_of(turn)[0]) == ((), ("1", [("oasst-a-up-1", 1)]))
    equal = [reply("a", "1", rank=0), reply("b", "2", rank=0)]
    (turn,) = turns_in(tmp_path, tree(said("q", "One?", *equal)))
    assert [choice.choice for choice in turn.choices] == ["tie"]
    refused(tmp_path, tree(said("q", "One?", *[reply("a", "1", rank="0")] * 2)), "whole number")


def test_a_red_flag_marks_its_answer_and_all_that_follows_from_it(tmp_path: Path) -> None:
    red = {"red_flag": 1}
    row = tree(
        said(
            "q",
            "One?",
            reply("a", "1", said("b", "Two?", reply("c", "2")), emojis=red),
            reply("d", "3", said("e", "Four?", reply("f", "4"), emojis=red)),
            reply("g", "5", said("h", "Six?", reply("i", "6"))),
        )
    )
    found = [(t.flagged, [a.flagged for a in t.answers]) for t in turns_in(tmp_path, row)]
    assert found == [
        (False, [True, False, False]),
        (True, [False]),
        (True, [False]),
        (False, [False]),
    ]


def test_deleted_messages_and_what_follows_from_them_are_left_out(tmp_path: Path) -> None:
    row = tree(
        said(
            "q",
            "One?",
            reply("a", "", said("b", "Two?", reply("c", "2")), deleted=True),
            reply("d", "1"),
        )
    )
    assert [[a.text for a in turn.answers] for turn in turns_in(tmp_path, row)] == [["1"]]
    assert turns_in(tmp_path, tree(said("q", "One?", reply("a", "1"), deleted=True))) == []


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (said("q", "One?", reply("a", " ")), "'text' is empty"),
        (said("q", "One?", said("a", "x", role="moderator")), "unknown role 'moderator'"),
        (said("q", "One?", 7), "'replies' must be an object"),
        (said("q", "One?", reply("a", "1", emojis=[])) | {"emojis": [1]}, "'emojis' must be"),
        (said("q", "One?") | {"replies": {}}, "'replies' must be a list"),
    ],
)
def test_a_broken_tree_is_refused(prompt: Any, reason: str, tmp_path: Path) -> None:
    refused(tmp_path, tree(prompt), reason)
