"""Tokens are drawn from the distribution that transformers' logits processors define."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.errors import InvalidInput
from engine.request import GenerationRequest, SamplingParams
from engine.serving.sampler import Sampler, token_logprobs

CONTEXT = [3, 5, 5, 11]


def random_logits(seed: int, vocabulary: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(vocabulary, generator=generator)


def sampled_distribution(params: SamplingParams, logits: Tensor) -> Tensor:
    """Probability of each token, seen by taking the draw out of the sampler's hands."""
    result = torch.zeros(len(logits))
    choice = 0
    weights = torch.empty(0)

    def take(probabilities: Tensor, _generator: torch.Generator) -> int:
        nonlocal weights
        weights = probabilities / probabilities.sum()
        return choice

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("engine.serving.sampler.draw", take)
        sampler = Sampler(params)
        token = sampler(logits, CONTEXT)
        for choice in range(len(weights)):
            token = sampler(logits, CONTEXT)
            result[token] += weights[choice]
    return result


def peer_distribution(params: SamplingParams, logits: Tensor) -> Tensor:
    """The same from transformers, in the order its `generate` applies them."""
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
            TemperatureLogitsWarper(float(params.temperature)),
            TopKLogitsWarper(params.top_k or len(logits)),
            TopPLogitsWarper(params.top_p),
            MinPLogitsWarper(params.min_p),
        ]
    )
    scores: Tensor = processors(torch.tensor([CONTEXT]), logits[None].clone())
    return scores[0].softmax(-1)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, top_p=1.0),
        SamplingParams(temperature=0.5, top_p=1.0),
        SamplingParams(temperature=1.0, top_p=1.0, top_k=5),
        SamplingParams(temperature=1.0, top_p=0.7),
        SamplingParams(temperature=1.0, top_p=0.01),
        SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.7),
        SamplingParams(temperature=1.0, top_p=1.0, top_k=10_000),
        SamplingParams(temperature=1.0, top_p=1.0, min_p=0.05),
        SamplingParams(temperature=1.0, top_p=1.0, min_p=1.0),
        SamplingParams(temperature=1.3, top_p=0.9, top_k=20, min_p=0.1, repetition_penalty=1.2),
    ],
    ids=[
        "plain",
        "temperature",
        "top_k",
        "top_p",
        "tiny_top_p",
        "penalty",
        "huge_top_k",
        "min_p",
        "highest_min_p",
        "all",
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_distribution_is_that_of_transformers(params: SamplingParams, seed: int) -> None:
    logits = random_logits(seed, vocabulary=60)
    ours, theirs = sampled_distribution(params, logits), peer_distribution(params, logits)
    assert (ours > 0).tolist() == (theirs > 0).tolist()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("top_p", [0.5, 0.98])
def test_a_nucleus_of_many_tokens_is_not_cut_short(top_p: float) -> None:
    logits = random_logits(0, vocabulary=1500, spread=0.5)  # flat: hundreds of tokens are needed
    params = SamplingParams(temperature=1.0, top_p=top_p)
    ours, theirs = sampled_distribution(params, logits), peer_distribution(params, logits)
    assert int((theirs > 0).sum()) > 400
    assert (ours > 0).tolist() == (theirs > 0).tolist()


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=0.9, seed=1))
    drawn = torch.tensor([sampler(logits, []) for _ in range(4000)])
    shares = drawn.bincount(minlength=4) / 4000
    # 0.5 + 0.3 + 0.15 first reaches 0.9; a share's standard error is at most 0.008
    torch.testing.assert_close(shares, torch.tensor([0.526, 0.316, 0.158, 0]), atol=0.035, rtol=0)
    assert shares[3] == 0


def test_temperature_zero_takes_the_most_likely_token() -> None:
    sampler = Sampler(SamplingParams(temperature=0, top_k=3, top_p=0.5))
    for seed in range(20):
        logits = random_logits(seed, vocabulary=50)
        assert sampler(logits, CONTEXT) == int(logits.argmax())


def test_a_repetition_penalty_counts_in_greedy_answers_too() -> None:
    logits = torch.tensor([2.0, 1.5, -1.0])
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=2.0))
    assert sampler(logits, [2]) == 0
    assert sampler(logits, [0]) == 1  # 2.0 / 2 < 1.5
    assert sampler(logits, [0, 1]) == 0  # 1.0 > 0.75


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    def draws(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler(random_logits(step, vocabulary=100), []) for step in range(30)]

    assert draws(7) == draws(7)
    assert draws(7) != draws(8)


def test_what_others_draw_does_not_change_a_streams_draws() -> None:
    logits = random_logits(0, vocabulary=100)
    alone = Sampler(SamplingParams(temperature=1.0, seed=7))
    expected = [alone(logits, []) for _ in range(20)]
    one, other = (Sampler(SamplingParams(temperature=1.0, seed=seed)) for seed in (7, 8))
    torch.manual_seed(1)
    mixed = [(one(logits, []), other(logits, []))[0] for _ in range(20)]
    assert mixed == expected


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        SamplingParams(
            temperature=-1,
            top_p=-1,
            top_k=-1,
            max_new_tokens=0,
            seed=-1,
            stop=("",),
            min_p=1.1,
            logprobs=21,
            repetition_penalty=0,
            presence_penalty=2.1,
            frequency_penalty=-2.1,
            logit_bias=((0, 101.0),) * 1025,
        )
    assert str(raised.value) == (
        "temperature must lie in [0, 10]; top_p must lie in [0, 1]; top_k must not be negative; "
        "repetition_penalty must lie in [0.01, 10]; max_new_tokens must be at least 1; "
        "seed must lie in [0, 2**63); stop strings must not be empty; min_p must lie in [0, 1]; "
        "logprobs must lie in [0, 20]; presence_penalty must lie in [-2, 2]; "
        "frequency_penalty must lie in [-2, 2]; logit_bias may name at most 1024 tokens; "
        "each logit_bias must lie in [-100, 100]"
    )


FRACTIONS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


@pytest.mark.parametrize("name", FRACTIONS)
def test_a_parameter_that_is_no_number_is_refused(name: str) -> None:
    parameters: dict[str, Any] = {name: float("nan")}
    with pytest.raises(InvalidInput, match=name):
        SamplingParams(**parameters)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_never_comes_or_has_passed_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="timeout_seconds"):
        GenerationRequest((), timeout_seconds=seconds)


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    kept = sampled_distribution(SamplingParams(temperature=1.0, top_p=1.0, min_p=0.2), logits)
    # 0.2 * 0.5 = 0.1, so that the last token goes; the others share 0.95
    torch.testing.assert_close(kept, torch.tensor([0.5, 0.3, 0.15, 0]) / 0.95)


def test_a_log_probability_is_that_of_the_untempered_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log() + 7  # a softmax forgets the 7
    logprob, top = token_logprobs(logits, 2, top=2)
    assert math.exp(logprob) == pytest.approx(0.15)
    assert [token_id for token_id, _ in top] == [0, 1]
    assert [math.exp(value) for _, value in top] == pytest.approx([0.5, 0.3])
    assert token_logprobs(logits, 2, top=0) == (logprob, [])
    assert len(token_logprobs(logits, 2, top=20)[1]) == 4


@pytest.mark.parametrize(
    ("params", "greedy"),
    [
        (SamplingParams(temperature=0), True),
        (SamplingParams(temperature=0, top_k=3, top_p=0.1, min_p=0.5), True),
        (SamplingParams(temperature=0, repetition_penalty=1.1), False),
        (SamplingParams(temperature=0, logprobs=0), False),
        (SamplingParams(temperature=0.1), False),
        (SamplingParams(temperature=1e-38), True),
        (SamplingParams(temperature=0, presence_penalty=0.1), False),
        (SamplingParams(temperature=0, frequency_penalty=-0.1), False),
        (SamplingParams(temperature=0, logit_bias=((3, 1.0),)), False),
    ],
)
def test_a_sampler_is_greedy_when_an_argmax_would_do(params: SamplingParams, greedy: bool) -> None:
    assert Sampler(params).is_greedy is greedy


def test_a_temperature_too_low_to_divide_by_is_greedy_and_a_top_p_of_nothing_too() -> None:
    logits = random_logits(0, vocabulary=300)
    for params in (
        SamplingParams(temperature=1e-38),
        SamplingParams(temperature=5e-324),
        SamplingParams(temperature=-0.0),
        SamplingParams(temperature=1.0, top_p=0.0),
        SamplingParams(temperature=1.0, top_p=1e-300),
    ):
        assert Sampler(params)(logits, CONTEXT) == int(logits.argmax())


FLOATS = st.floats() | st.floats(0, 10) | st.floats(-2, 2) | st.floats(0, 1e-30)
LOGITS = st.sampled_from(
    [
        random_logits(0, 60),
        random_logits(0, 60, spread=1e4),
        torch.zeros(60),
        random_logits(1, 60).masked_fill(torch.arange(60) > 5, -torch.inf),
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    LOGITS,
    st.dictionaries(st.sampled_from(FRACTIONS), FLOATS),
    st.lists(st.tuples(st.integers(0, 59), FLOATS), max_size=3),
    st.integers(),
)
@example(random_logits(0, 60), {"temperature": 1e-38}, [], 0)
@example(random_logits(0, 60), {"temperature": 1e-5, "repetition_penalty": 0.01}, [], 0)
@example(random_logits(0, 60), {"top_p": 1e-300, "temperature": 1.0}, [], 0)
@example(torch.zeros(60), {"repetition_penalty": 1e-300}, [], 0)
def test_every_float_is_refused_or_gives_a_token(
    logits: Tensor, fractions: dict[str, Any], bias: list[tuple[int, float]], top_k: int
) -> None:
    try:
        params = SamplingParams(**fractions, logit_bias=tuple(bias), top_k=top_k)
    except InvalidInput:
        return
    sampler = Sampler(params)
    for _ in range(3):
        assert 0 <= sampler(logits, CONTEXT) < len(logits)


def distribution_after(params: SamplingParams, logits: Tensor, chosen: list[int]) -> Tensor:
    """What the next token is drawn from once the sampler has been made to choose `chosen`."""
    sampler = Sampler(params)
    seen = torch.empty(0)

    def take(probabilities: Tensor, _generator: torch.Generator) -> int:
        nonlocal seen
        seen = probabilities
        return chosen.pop(0) if chosen else 0

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("engine.serving.sampler.draw", take)
        for _ in range(len(chosen) + 1):
            sampler(logits, CONTEXT)
    return seen


def test_presence_and_frequency_count_what_the_answer_has_and_not_the_prompt() -> None:
    logits = random_logits(0, vocabulary=12)  # the prompt has 3, 5 twice and 11
    params = SamplingParams(
        temperature=1.0, top_p=1.0, presence_penalty=0.5, frequency_penalty=0.25
    )
    ours = distribution_after(params, logits, [1, 1, 5, 1])
    expected = logits.clone()
    expected[1] -= 3 * 0.25 + 0.5
    expected[5] -= 1 * 0.25 + 0.5
    torch.testing.assert_close(ours, expected.softmax(-1))


def test_penalties_below_zero_make_what_was_said_likelier() -> None:
    logits = torch.tensor([1.0, 0.9, -3.0])
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=1.0))
    assert [sampler(logits, []) for _ in range(3)] == [0, 1, 0]  # 1.0, then 0.9 over 0.0
    eager = Sampler(SamplingParams(temperature=0, frequency_penalty=-1.0))
    assert [eager(logits, []) for _ in range(3)] == [0, 0, 0]


def test_a_bias_is_added_to_the_logits_before_the_penalties() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5])
    biased = SamplingParams(temperature=1.0, top_p=1.0, logit_bias=((1, 2.5), (2, -100.0)))
    kept = sampled_distribution(biased, logits)
    torch.testing.assert_close(kept, torch.tensor([2.0, 3.5, -99.5]).softmax(-1))
    # 1.0 - 2.0 < 0, so a penalty of 2 multiplies: -2.0, and token 2 is left as the likeliest
    both = SamplingParams(temperature=0, logit_bias=((0, -4.0), (1, -2.0)), repetition_penalty=2.0)
    assert Sampler(both)(logits, [1]) == 2
    assert Sampler(SamplingParams(temperature=0, logit_bias=((2, 100.0),)))(logits, []) == 2


def test_a_bias_for_a_token_that_the_model_does_not_have_is_refused() -> None:
    SamplingParams(logit_bias=((0, 1.0), (59, 1.0))).require_known_tokens(60)
    for unknown in (-1, 60, 2**70):
        with pytest.raises(InvalidInput, match=f"token {unknown}; the model has tokens 0 to 59"):
            SamplingParams(logit_bias=((0, 1.0), (unknown, 1.0))).require_known_tokens(60)
