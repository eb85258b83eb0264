"""Rewards of the answers: of the greedy one, and of the best of several.

The second says what an adapter could do if its answers were chosen from (Nakano et al. 2021, sec.
3.4). A reward is a model's opinion and can be over-optimised (Gao et al. 2023), so no verdict rests
on it. Texts stay in memory. Knows no verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from engine.request import Engine, SamplingParams
from tuning.best_of import BestOf, Scorer, best_of
from tuning.evaluation.answers import Answered, evaluation_messages
from tuning.evaluation.roles import Adapters, ModelRole, for_each_role

DRAWN = 4  # answers to choose from, at temperature 1


@dataclass(frozen=True, slots=True)
class Rewarded:
    """One prompt: each model's reward for its greedy answer, the mean of those drawn, their best.

    Rewards of one prompt can be compared, those of two cannot.
    """

    prompt_id: str
    greedy: Mapping[ModelRole, float]
    drawn: Mapping[ModelRole, float]
    best: Mapping[ModelRole, float]


def score_rewards(
    engine: Engine, scorer: Scorer, adapters: Adapters, answered: Sequence[Answered]
) -> Iterator[Rewarded]:
    """Score every model's answer to each prompt, and draw `DRAWN` more; adapters must be loaded."""
    for each in answered:
        prompt, shown = each.prompt, evaluation_messages(each.prompt)
        sampling = SamplingParams(temperature=1.0, max_new_tokens=prompt.max_new_tokens)

        def draw(adapter: str | None) -> BestOf:
            return best_of(engine, scorer, shown, DRAWN, sampling=sampling, adapter=adapter)  # noqa: B023 - called at once

        drawn = for_each_role(adapters, draw)
        yield Rewarded(
            prompt.id,
            greedy={
                role: scorer.score(shown, answer.text, complete=answer.reason == "stop")
                for role, answer in each.answers.items()
            },
            drawn={role: fmean(found.scores) for role, found in drawn.items()},
            best={role: max(found.scores) for role, found in drawn.items()},
        )
