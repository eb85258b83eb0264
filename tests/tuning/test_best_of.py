"""Best of n: which answer is taken, and what it costs to ask for nonsense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from engine.request import SamplingParams
from tests.support.scripted_engine import ScriptedEngine
from tuning.best_of import best_of

PROMPT = (Message("user", "Count."),)
SHORT = SamplingParams(max_new_tokens=2, seed=7)


class Listed:
    """Scores answers by a list, in the order in which they come."""

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)
        self.seen: list[tuple[str, bool]] = []

    def score(self, prompt: Sequence[Message], answer: str, *, complete: bool = True) -> float:
        assert tuple(prompt) == PROMPT
        self.seen.append((answer, complete))
        return self._scores[len(self.seen) - 1]


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine(token_seconds=0.001)
    yield engine
    engine.close()


def test_the_highest_score_wins_and_all_scores_are_told(engine: ScriptedEngine) -> None:
    found = best_of(engine, Listed(0.1, 2.0, -3.0), PROMPT, 3, sampling=SHORT, adapter="sha256:a")
    assert (found.best, found.scores) == (1, (0.1, 2.0, -3.0))
    assert found.answer is found.answers[1]
    assert [request.adapter for request in engine.requests] == ["sha256:a"] * 3


def test_of_equals_the_first_is_taken(engine: ScriptedEngine) -> None:
    assert best_of(engine, Listed(1.0, 5.0, 5.0), PROMPT, 3, sampling=SHORT).best == 1


def test_each_answer_is_drawn_with_a_seed_of_its_own(engine: ScriptedEngine) -> None:
    best_of(engine, Listed(0.0, 0.0, 0.0), PROMPT, 3, sampling=SHORT)
    assert [request.sampling.seed for request in engine.requests] == [7, 8, 9]


def test_the_scorer_is_told_that_an_answer_was_cut_off(engine: ScriptedEngine) -> None:
    """Without a script, the engine always stops at the limit."""
    scorer = Listed(0.0)
    best_of(engine, scorer, PROMPT, 1, sampling=SHORT)
    assert scorer.seen == [("w0 w1 ", False)]


def test_several_greedy_answers_are_refused_since_they_would_be_one(engine: ScriptedEngine) -> None:
    greedy = SamplingParams(temperature=0, max_new_tokens=2)
    with pytest.raises(InvalidInput, match="temperature 0"):
        best_of(engine, Listed(), PROMPT, 2, sampling=greedy)
    assert best_of(engine, Listed(0.5), PROMPT, 1, sampling=greedy).best == 0
    with pytest.raises(InvalidInput, match="at least 1"):
        best_of(engine, Listed(), PROMPT, 0)
