"""Each example says why it is there, for a person to read."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_store.examples.explanation import changes, explain, written_by
from feedback_store.examples.pairing import build_prompt_examples
from feedback_store.examples.types import Side
from tests.feedback_store.helpers import reply, said

BASE = "sha256:base"


def test_a_pair_says_who_said_what_and_who_wrote_each_side() -> None:
    evidence = said(
        reply("a", "Good.", adapter="sha256:live"),
        reply("b", "Bad.", thought="Hm.", complete=False, adapter="sha256:live"),
        votes=[(4, "a", "ann", 1), (9, "b", "bob", -1)],
    )
    (pair,) = build_prompt_examples(evidence).pairs
    assert explain(pair, BASE, "sha256:live") == {
        "id": pair.id,
        "kind": "pair",
        "source": "votes",
        "policy": "on",
        "events": [4, 9],
        "users": ["ann", "bob"],
        "conversation": "c1",
        "question": "What is a leaf?",
        "chosen": {
            "text": "Good.",
            "thought": "",
            "complete": True,
            "answer": "a",
            "written_by": "sha256:live",
        },
        "rejected": {
            "text": "Bad.",
            "thought": "Hm.",
            "complete": False,
            "answer": "b",
            "written_by": "sha256:live",
        },
    }
    assert explain(pair, BASE, None)["policy"] == "off"


def test_a_correction_shows_what_it_changed() -> None:
    evidence = said(reply("a", "A lef is red."), corrections=[(1, "a", "ann", "A leaf is red!")])
    (pair,) = build_prompt_examples(evidence).pairs
    document = explain(pair, BASE, None)
    assert document["changes"] == [
        ("same", "A "),
        ("removed", "lef"),
        ("added", "leaf"),
        ("same", " is red"),
        ("removed", "."),
        ("added", "!"),
    ]
    assert document["chosen"]["written_by"] == "person"
    assert document["policy"] == "on"
    json.dumps(document)


@pytest.mark.parametrize("vote", [1, -1])
def test_a_lone_thumb_says_its_label(vote: int) -> None:
    (lone,) = build_prompt_examples(
        said(reply("a", "A leaf."), votes=[(1, "a", "ann", vote)])
    ).unpaired
    document = explain(lone, BASE, None)
    assert (document["kind"], document["label"]) == ("unpaired", vote > 0)
    assert document["completion"]["text"] == "A leaf."


def test_a_demonstration_has_no_label() -> None:
    (shown,) = build_prompt_examples(
        said(reply("a", "A."), votes=[(1, "a", "ann", 1)])
    ).demonstrations
    document = explain(shown, BASE, None)
    assert document["kind"] == "demonstration"
    assert "label" not in document and "changes" not in document


@pytest.mark.parametrize(
    ("base", "adapter", "writer"),
    [
        ("person", None, "person"),
        ("imported", None, "imported"),
        ("sha256:base", None, "base"),
        ("sha256:base", "sha256:old", "sha256:old"),
    ],
)
def test_a_side_names_its_writer(base: str, adapter: str | None, writer: str) -> None:
    assert written_by(Side("A.", "", True, "a", base, adapter)) == writer


WORDS = st.lists(st.sampled_from(["a", "leaf", " ", "\n", ".", "好", "é", "_"]), max_size=300)


@given(st.text() | WORDS.map("".join), st.text() | WORDS.map("".join))
def test_the_changes_tell_both_texts_whole(original: str, corrected: str) -> None:
    parts = list(changes(original, corrected))
    assert "".join(text for kind, text in parts if kind != "added") == original
    assert "".join(text for kind, text in parts if kind != "removed") == corrected
    assert all(text for _, text in parts)


def test_equal_texts_have_no_changes() -> None:
    assert list(changes("A leaf.", "A leaf.")) == [("same", "A leaf.")]


def test_the_longest_texts_that_may_be_trained_on_are_compared_while_a_person_waits() -> None:
    """Spaces are everywhere: compared naively, these two take minutes."""
    begin = time.perf_counter()
    assert list(changes("! " * 4_000, ", " * 4_000))
    assert time.perf_counter() - begin < 5
