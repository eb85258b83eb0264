"""An example is a row that can be read back, knows its id, and says whose policy wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.messages import Message
from engine.storage import canonical_json
from feedback_store.examples.types import (
    Demonstration,
    Origin,
    Pair,
    Policy,
    Side,
    TrainingExample,
    Unpaired,
    demonstration_from_dict,
    derived_id,
    example_id,
    pair_from_dict,
    policy_of,
    unpaired_from_dict,
)
from tests.feedback_store.helpers import voted_pair

PROMPT = (Message("system", "Be brief."), Message("user", "Is {{x}} 好?\u2028"))
ORIGIN = Origin("c1", "hash", (3, 7), ("ann", "bob"))
LIVE = Side("No.", "Hm.", True, "a1", "sha256:base", "sha256:live")
PERSONS = Side("Yes.", "Hm.", True, "a1", "person", None)
PAIR = Pair("id", PROMPT, PERSONS, LIVE, "correction", ORIGIN)
UNPAIRED = Unpaired("id", PROMPT, replace(LIVE, complete=False), False, "vote", ORIGIN)
DEMONSTRATION = Demonstration("id", PROMPT, PERSONS, "correction", ORIGIN)


@pytest.mark.parametrize(
    ("example", "read"),
    [
        (PAIR, pair_from_dict),
        (UNPAIRED, unpaired_from_dict),
        (DEMONSTRATION, demonstration_from_dict),
    ],
    ids=["pair", "unpaired", "demonstration"],
)
def test_a_row_reads_back_as_the_example_it_was(
    example: TrainingExample, read: Callable[[Mapping[str, Any]], TrainingExample]
) -> None:
    row = json.loads(canonical_json(example.as_dict()))
    assert read(row) == example


def test_a_row_is_in_the_format_trl_reads_with_where_it_comes_from() -> None:
    assert PAIR.as_dict() == {
        "id": "id",
        "prompt": [message.as_dict() for message in PROMPT],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "chosen_thought": "Hm.",
        "chosen_complete": True,
        "chosen_answer_id": "a1",
        "chosen_base": "person",
        "chosen_adapter": None,
        "rejected": [{"role": "assistant", "content": "No."}],
        "rejected_thought": "Hm.",
        "rejected_complete": True,
        "rejected_answer_id": "a1",
        "rejected_base": "sha256:base",
        "rejected_adapter": "sha256:live",
        "source": "correction",
        "conversation_id": "c1",
        "template_hash": "hash",
        "event_ids": (3, 7),
        "user_ids": ("ann", "bob"),
    }
    assert UNPAIRED.as_dict()["label"] is False


def test_an_id_tells_kinds_sides_and_the_authors_of_corrections_apart() -> None:
    other = replace(LIVE, answer_id="a2")
    ids = [
        example_id("votes", (LIVE, other), "votes", ("ann",)),
        example_id("votes", (other, LIVE), "votes", ("ann",)),
        example_id("comparison", (LIVE, other), "comparison", ("ann",)),
        example_id("correction", (PERSONS, LIVE), "correction", ("ann",)),
        example_id("correction", (PERSONS, LIVE), "correction", ("bob",)),
        example_id("unpaired", (LIVE,), "vote", ("ann",)),
        example_id("demonstration", (LIVE,), "vote", ("ann",)),
        example_id("demonstration", (PERSONS,), "correction", ("ann",)),
    ]
    assert len(set(ids)) == len(ids)


def test_an_id_depends_on_no_words() -> None:
    """So that a redacted or an edited example is still the one that was decided about."""
    pair = voted_pair("c1")
    changed = replace(pair, chosen=replace(pair.chosen, text="Other.", thought="So."))
    assert derived_id(changed) == derived_id(pair) == pair.id


@pytest.mark.parametrize(
    ("example", "base", "incumbent", "policy"),
    [
        (PAIR, "sha256:base", "sha256:live", "on"),  # the person's side is nobody's policy
        (PAIR, "sha256:base", "sha256:other", "off"),
        (PAIR, "sha256:base", None, "off"),
        (PAIR, "sha256:other", "sha256:live", "off"),
        (UNPAIRED, "sha256:base", "sha256:live", "on"),
        (DEMONSTRATION, "sha256:base", "sha256:live", "off"),  # no model wrote any of it
        (voted_pair("c1"), "sha256:base", None, "off"),  # one side is the base's, one is not
    ],
)
def test_what_the_live_adapter_wrote_is_on_policy(
    example: TrainingExample, base: str, incumbent: str | None, policy: Policy
) -> None:
    assert policy_of(example, base, incumbent) == policy


def test_imported_text_is_off_policy() -> None:
    imported = replace(UNPAIRED, completion=replace(LIVE, base="imported", adapter=None))
    assert policy_of(imported, "sha256:base", None) == "off"
