"""The shown branch of a conversation as a file to keep."""

from __future__ import annotations

import json

from feedback_store.conversations.conversation_list import Conversations
from feedback_store.formats.conversations import to_json, to_markdown
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.conftest import Conversations as Talk


def test_the_shown_branch_as_markdown(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    one = talk.ask("What is a leaf?", "A leaf.")
    talk.again(one, "Another.")
    conversations.show("c1", "ann", one)
    talk.ask("And a root?", "Below.\n", parent=one)
    store.vote(one, "ann", -1, reasons=["too_short", "other"], comment="Say\nmore.")
    store.correct(one, "ann", "A green part.\n\nOf a plant.")
    store.note(one, "ann", "flag")
    assert (
        to_markdown(conversations.view("c1", "ann"))
        == """\
# What is a leaf?

## Question

What is a leaf?

## Answer

A leaf.

> Vote: bad (other, too short)

> Comment: Say
> more.

> Flagged: not to be used

> Correction:
> A green part.
>
> Of a plant.

## Question

And a root?

## Answer

Below.
"""
    )


def test_the_shown_branch_as_json(
    store: FeedbackStore, talk: Talk, conversations: Conversations
) -> None:
    turn = store.add_turn(
        user_id="ann", question="Q", template=PLAIN, conversation_id="c1", example_ids=["e1"]
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="sha256:b", adapter_digest="sha256:a", sampling={"top_p": 0.5}, seed=7
    )
    store.finish_answer(
        answer_id,
        status="done",
        text="A",
        thought="Hm.",
        complete=True,
        prompt_tokens=3,
        completion_tokens=2,
        first_token_at=1.5,
    )
    store.vote(answer_id, "ann", 1, reasons=["safe"])
    view = conversations.view("c1", "ann")
    (only,) = view.turns
    whole = to_json(view)
    assert (
        json.loads(json.dumps(whole))
        == whole
        == {
            "id": "c1",
            "title": "Q",
            "pinned": False,
            "updated_at": view.summary.updated_at,
            "turns": [
                {
                    "id": turn.id,
                    "asked_at": only.created_at,
                    "question": "Q",
                    "mode": "plain",
                    "example_ids": ["e1"],
                    "answer": {
                        "id": answer_id,
                        "status": "done",
                        "complete": True,
                        "text": "A",
                        "thought": "Hm.",
                        "base": "sha256:b",
                        "adapter": "sha256:a",
                        "sampling": {"top_p": 0.5},
                        "seed": 7,
                        "prompt_tokens": 3,
                        "completion_tokens": 2,
                        "begun_at": only.answer.created_at,
                        "first_token_at": 1.5,
                        "finished_at": only.answer.finished_at,
                        "error": None,
                    },
                    "vote": 1,
                    "reasons": ["safe"],
                    "comment": "",
                    "correction": None,
                    "flagged": False,
                }
            ],
        }
    )
