"""Evaluate a candidate on one engine: everything the gate's verdict rests on.

An evaluation holds no text and no user: conversations are numbered, answers are measured and
dropped. So there is nothing in it to forget when a person is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import InvalidInput
from engine.request import Engine
from feedback_store.examples.types import Pair, Unpaired
from tuning.best_of import Scorer
from tuning.evaluation.answers import (
    Opinions,
    PromptMeasures,
    answer_prompts,
    ask_judge,
    load_prompts,
    measure_answers,
)
from tuning.evaluation.generic import Drift, Passage, measure_drift, score_passages
from tuning.evaluation.judgements import JudgementScores, score_judgements
from tuning.evaluation.preferences import PairScores, score_pairs
from tuning.evaluation.rewards import Rewarded, score_rewards
from tuning.evaluation.roles import adapters_of
from tuning.judge import Judge

SayStep = Callable[[str], object]  # receives what is being done, for a person who waits


def say_nothing(_step: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of candidate, incumbent and base."""

    pairs: tuple[PairScores, ...]
    answers: tuple[PromptMeasures, ...] = ()
    drift: tuple[Drift, ...] = ()
    passages: tuple[Passage, ...] = ()
    opinions: Opinions | None = None
    rewards: tuple[Rewarded, ...] = ()
    judgements: tuple[JudgementScores, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, with a number in place of each conversation's id."""
        numbers: dict[str, int] = {}
        document = asdict(self)
        for each in (*document["pairs"], *document["judgements"]):
            name = each.pop("conversation_id")
            each["conversation"] = numbers.setdefault(name, len(numbers))
        return document


def evaluation_from_dict(document: Any) -> Evaluation:
    """The evaluation of a document that `as_dict` made; a conversation's number is its id.

    Raises `InvalidInput` for a document of another form.
    """
    from pydantic import TypeAdapter, ValidationError  # takes a while to read the types

    try:
        numbered = {**document}
        for kind in ("pairs", "judgements"):
            numbered[kind] = [
                {**each, "conversation_id": str(each["conversation"])} for each in document[kind]
            ]
        return TypeAdapter(Evaluation).validate_python(numbered)
    except (ValidationError, LookupError, TypeError) as error:
        raise InvalidInput(f"this is no evaluation: {type(error).__name__}") from error


def evaluate(
    engine: Engine,
    held_out: Sequence[Pair],
    gold: Sequence[Pair] = (),
    judged: Sequence[Unpaired] = (),
    *,
    candidate: str | None,
    incumbent: str | None,
    judge: Judge | None = None,
    scorer: Scorer | None = None,
    say: SayStep = say_nothing,
) -> Evaluation:
    """Measure both adapters, which must be loaded (None: the base model), and the base.

    `held_out` and `gold` are pairs that neither was trained on, `judged` such answers with a thumb.
    With a `judge`, the answers to the
    fixed prompts are compared, too; a `scorer` is a reward model that scores them. `say` is told
    each step.
    """
    adapters = adapters_of(candidate, incumbent)
    prompts = load_prompts()
    say(f"Answering {len(prompts)} fixed prompts")
    answered = answer_prompts(engine, adapters, prompts)
    pairs = (
        *score_pairs(engine, _counted(held_out, "held-out pair", say), adapters),
        *score_pairs(engine, _counted(gold, "gold pair", say), adapters, gold=True),
    )
    say("Scoring texts that nobody judged, answers with thumbs, and opinions")
    return Evaluation(
        pairs=pairs,
        answers=tuple(measure_answers(each) for each in answered),
        drift=tuple(measure_drift(engine, adapters, prompts)),
        passages=tuple(score_passages(engine, adapters)),
        opinions=ask_judge(judge, answered) if judge else None,
        rewards=tuple(score_rewards(engine, scorer, adapters, answered)) if scorer else (),
        judgements=tuple(score_judgements(engine, judged, adapters)),
    )


def _counted(pairs: Sequence[Pair], what: str, say: SayStep) -> Iterator[Pair]:
    """The pairs; `say` is told the number of each before it is scored."""
    for number, pair in enumerate(pairs, 1):
        say(f"Scoring {what} {number} of {len(pairs)}")
        yield pair
