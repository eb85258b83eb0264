"""Prompts that a person keeps: theirs alone, bounded, and gone with the person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import InvalidInput, UnknownId
from feedback_store.personal.own_prompts import MAX_PROMPTS, OwnPrompts, PromptText
from feedback_store.privacy.erasure import forget_user
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore

PIRATE = PromptText("system", "Pirate", "You talk like a pirate.")
SUMMARY = PromptText("saved", "In short", "Summarise {{text}}.")


@pytest.fixture
def prompts(database: Database, store: FeedbackStore) -> OwnPrompts:
    return OwnPrompts(database)


def kept(prompts: OwnPrompts, user_id: str) -> list[tuple[str, str, str]]:
    return [(prompt.kind, prompt.title, prompt.text) for prompt in prompts.of(user_id)]


def test_prompts_are_kept_by_title_changed_and_removed(prompts: OwnPrompts) -> None:
    pirate, summary = prompts.add("ann", PIRATE), prompts.add("ann", SUMMARY)
    assert [prompt.id for prompt in prompts.of("ann")] == [summary, pirate]
    prompts.change(pirate, "ann", PromptText("system", "Sea\n dog", "Ahoy."))
    prompts.remove(summary, "ann")
    assert kept(prompts, "ann") == [("system", "Sea dog", "Ahoy.")]


def test_a_prompt_is_its_persons_alone(prompts: OwnPrompts) -> None:
    pirate = prompts.add("ann", PIRATE)
    assert prompts.of("bob") == []
    attempts: tuple[Callable[[], None], ...] = (
        lambda: prompts.change(pirate, "bob", SUMMARY),
        lambda: prompts.remove(pirate, "bob"),
        lambda: prompts.remove("0" * 32, "ann"),
    )
    for refused in attempts:
        with pytest.raises(UnknownId, match="no prompt"):
            refused()
    assert kept(prompts, "ann") == [("system", "Pirate", "You talk like a pirate.")]


def test_a_person_is_forgotten_with_their_prompts(prompts: OwnPrompts, database: Database) -> None:
    prompts.add("ann", PIRATE)
    prompts.add("bob", SUMMARY)
    assert forget_user(database, "ann").receipt["rows"]["prompts"] == 1
    assert (prompts.of("ann"), len(prompts.of("bob"))) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "title", "text", "said"),
    [
        ("other", "T", "x", "unknown kind 'other'; known: system, saved"),
        ("saved", " ", "x", "the title is empty"),
        ("saved", "T" * 81, "x", "the title has 81 characters; the limit is 80"),
        ("saved", "T", "", "the prompt is empty"),
        ("system", "T", "x" * 8_001, "the prompt has 8001 characters; the limit is 8000"),
        ("system", "T", "\x00", "the prompt contains a NUL character"),
    ],
)
def test_what_cannot_be_kept_is_said(
    prompts: OwnPrompts, kind: Any, title: str, text: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        prompts.add("ann", PromptText(kind, title, text))
    assert prompts.of("ann") == []


def test_a_person_keeps_so_many_prompts_and_no_more(prompts: OwnPrompts) -> None:
    first = prompts.add("ann", PIRATE)
    for _ in range(MAX_PROMPTS - 1):
        prompts.add("ann", SUMMARY)
    with pytest.raises(InvalidInput, match="you keep 200 prompts already; remove one first"):
        prompts.add("ann", SUMMARY)
    prompts.remove(first, "ann")
    prompts.add("ann", SUMMARY)
