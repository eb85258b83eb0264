"""Short ways to say what people said, without a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.messages import Message
from feedback_store.examples.types import Examples, Origin, Pair, Side, example_id
from feedback_store.records import (
    AnswerStatus,
    ChoiceValue,
    CurrentChoice,
    CurrentCorrection,
    CurrentVote,
    ImportedAnswer,
    ImportedTurn,
    ImportedVote,
    PromptEvidence,
    WrittenAnswer,
)

if TYPE_CHECKING:
    from feedback_store.view.training_set import TrainingSet  # slow to import

PROMPT = (Message("user", "What is a leaf?"),)
DATA = Path(
    os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[2].joinpath("../shared/data"))
)


def real(name: str) -> Path:
    """A real file, or the test is skipped with its name."""
    if not (DATA / name).is_file():
        pytest.skip(f"needs {DATA / name} (set BURNISH_TEST_DATA)")
    return DATA / name


def reply(
    answer_id: str,
    text: str,
    *,
    status: AnswerStatus = "done",
    complete: bool = True,
    thought: str = "",
    adapter: str | None = None,
    **sampling: object,
) -> WrittenAnswer:
    """An answer of the model "sha256:base"."""
    base = "sha256:base"
    return WrittenAnswer(answer_id, "t1", status, text, thought, complete, base, adapter, sampling)


def said(
    *answers: WrittenAnswer,
    votes: Iterable[tuple[int, str, str, int]] = (),
    corrections: Iterable[tuple[int, str, str, str]] = (),
    choices: Iterable[tuple[int, str, str, str, ChoiceValue]] = (),
    prompt: tuple[Message, ...] = PROMPT,
    conversation: str = "c1",
    flagged: Iterable[str] = (),
) -> PromptEvidence:
    """What Ann asked, and what people say of the answers; each statement begins with its event.

    Votes are (event, answer, user, vote), corrections (event, answer, user, text), choices
    (event, left, right, user, choice).
    """
    return PromptEvidence(
        conversation,
        "ann",
        "hash",
        "plain",
        prompt,
        answers,
        votes=tuple(CurrentVote(*vote, at=0.0) for vote in votes),
        corrections=tuple(CurrentCorrection(*each, at=0.0) for each in corrections),
        choices=tuple(CurrentChoice(*choice, at=0.0) for choice in choices),
        flagged=frozenset(flagged),
    )


def texts(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """(chosen, rejected) of each, thoughts included."""
    return [(pair.chosen.full_text, pair.rejected.full_text) for pair in pairs]


def voted_pair(
    conversation: str,
    chosen: str = "Good, 好.",
    rejected: str = "Bad.",
    *,
    event: int = 1,
    user: str = "ann",
) -> Pair:
    """A pair that two thumbs made, of answers of its own; the rejected one was cut off."""
    good = Side(chosen, "", True, f"good-{conversation}-{event}", "sha256:base", None)
    bad = Side(rejected, "", False, f"bad-{conversation}-{event}", "sha256:base", "sha256:old")
    return Pair(
        example_id("votes", (good, bad), "votes", (user,)),
        (Message("system", "Be brief."), Message("user", f"Q of {conversation}")),
        good,
        bad,
        "votes",
        Origin(conversation, "hash", (event, event + 1), (user,)),
    )


def examples_now(training_set: TrainingSet, *, reestimate: bool = False) -> Examples:
    """All examples and all that is set aside, brought up to date."""
    training_set.refresh(reestimate=reestimate)
    _, examples = training_set.load_examples()
    return examples


def judged(
    answers: Iterable[tuple[str, str]], text: str = "A leaf.", user: str = "importer"
) -> ImportedTurn:
    """An imported answer with the thumbs of several people: (user, "+" or "-")."""
    votes = tuple(ImportedVote(user, 1 if vote == "+" else -1) for user, vote in answers)
    return ImportedTurn(PROMPT, (ImportedAnswer(text, votes=votes),))
