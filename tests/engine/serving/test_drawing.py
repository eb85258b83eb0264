"""Tokens are drawn by their probabilities, under a grammar as well."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from engine.request import SamplingParams
from engine.serving.grammar import GrammarMatcher
from engine.serving.sampler import Sampler, draw, most_likely
from tests.engine.serving.test_sampler import peer_distribution, random_logits


def shares(weights: Tensor, draws: int = 20_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw(weights, generator) for _ in range(draws)])
    return torch.bincount(drawn, minlength=len(weights)) / draws


def test_tokens_are_drawn_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 4.0, 0.0])
    expected = weights / 8
    four_standard_errors = 4 * (expected * (1 - expected) / 20_000).sqrt()
    assert ((shares(weights) - expected).abs() <= four_standard_errors).all()


@pytest.mark.parametrize("point", [0.0, math.nextafter(1.0, 0.0)])
def test_the_ends_of_the_range_draw_a_token_that_has_weight(
    monkeypatch: pytest.MonkeyPatch, point: float
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(point, dtype=torch.float64))
    weights = torch.tensor([0.0, 1e-30, 0.1, 0.2, 0.0])
    assert draw(weights, torch.Generator()) == (1 if point == 0 else 3)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_nothing_is_drawn_from_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no token can be drawn"):
        draw(torch.tensor(weights), torch.Generator())


def test_the_likeliest_of_each_row_is_the_first_of_equals_in_any_precision() -> None:
    rows = torch.tensor([[1.0, 3.0, 3.0], [-torch.inf, -5.0, -7.0]])
    assert most_likely(rows) == most_likely(rows.bfloat16()) == [1, 1]


class Allowing:
    """A grammar after whose every token the same ones are allowed."""

    is_complete = False

    def __init__(self, allowed: Tensor) -> None:
        self._allowed = allowed
        self.masks = 0

    def allow(self, logits: Tensor) -> Tensor:
        self.masks += 1
        return logits.masked_fill(~self._allowed, -torch.inf)

    def advance_if_allowed(self, token_id: int) -> bool:
        return bool(self._allowed[token_id])

    def advance(self, token_id: int) -> None:
        assert self._allowed[token_id]


@pytest.mark.parametrize(
    "params",
    [SamplingParams(temperature=1.0, top_p=1.0), SamplingParams(temperature=1.0, top_p=0.9)],
    ids=["rejected and drawn again", "masked first"],
)
def test_under_a_grammar_tokens_are_drawn_as_from_the_allowed_ones_alone(
    params: SamplingParams,
) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5])
    allowed = torch.tensor([False, True, True, True, False])
    expected = peer_distribution(params, logits.masked_fill(~allowed, -torch.inf))
    sampler = Sampler(params, cast(GrammarMatcher, Allowing(allowed)))
    drawn = torch.tensor([sampler(logits, []) for _ in range(20_000)])
    found = torch.bincount(drawn, minlength=5) / len(drawn)
    four_standard_errors = 4 * (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((found - expected).abs() <= four_standard_errors).all()


def test_a_grammar_that_allows_everything_changes_no_token_and_makes_no_mask() -> None:
    logits = random_logits(0, 60)
    grammar = Allowing(torch.ones(60, dtype=torch.bool))
    for params in (SamplingParams(temperature=0), SamplingParams(temperature=1.0, top_p=1.0)):
        plain, bound = Sampler(params), Sampler(params, cast(GrammarMatcher, grammar))
        assert [plain(logits, []) for _ in range(50)] == [bound(logits, []) for _ in range(50)]
    assert grammar.masks == 0
