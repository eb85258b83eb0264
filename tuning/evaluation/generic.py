"""The drift of each model from the base on text that nobody gave feedback on.

Two measures: KL divergence on texts that the base wrote, and perplexity of shipped passages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.messages import Message
from engine.prompts.modes import make_template
from engine.request import Engine, GenerationRequest, SamplingParams, Score, ScoreRequest, collect
from engine.yaml_files import shipped_yaml
from tuning.evaluation.answers import EvaluationPrompt, evaluation_messages
from tuning.evaluation.roles import Adapters, ModelRole, for_each_role

SAMPLED_TOKENS = 48  # a text from each plain prompt: close to a thousand tokens in all


@dataclass(frozen=True, slots=True)
class Drift:
    """KL(base || model) on one text that the base wrote, in nats a token."""

    prompt_id: str
    tokens: int
    kl: Mapping[ModelRole, float]


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of generic text under every model: summed log-probabilities (natural log)."""

    id: str
    tokens: int
    logprob: Mapping[ModelRole, float]


def measure_drift(
    engine: Engine, adapters: Adapters, prompts: Sequence[EvaluationPrompt]
) -> list[Drift]:
    """The divergence of every model from the base, on the same texts.

    The base writes them: one answer to each plain prompt, drawn at temperature 1 without filters,
    seeds fixed. They show what an adapter has made unlikely, which texts of the adapter would not.
    The text is tokenized anew for scoring, which seldom changes a token.
    """
    plain = [prompt for prompt in prompts if prompt.mode == "plain"]
    streams = engine.submit_many(
        [
            GenerationRequest(
                evaluation_messages(prompt),
                SamplingParams(temperature=1, top_p=1, max_new_tokens=SAMPLED_TOKENS, seed=seed),
                user="evaluation",
            )
            for seed, prompt in enumerate(plain)
        ]
    )
    texts = [
        _Text(prompt.id, evaluation_messages(prompt), written.text, written.reason == "stop")
        for prompt, written in zip(plain, map(collect, streams), strict=True)
    ]
    return [
        Drift(text.id, len(base), {role: k3(s.token_logprobs, base) for role, s in scores.items()})
        for text, scores in zip(texts, _score(engine, adapters, texts), strict=True)
        if (base := scores["base"].token_logprobs)
    ]


def k3(model: Sequence[float], base: Sequence[float]) -> float:
    """Mean of (r - 1) - log r over tokens that the base drew, r = p_model / p_base.

    Schulman's third estimator of KL(base || model): without bias, and never below 0
    (http://joschu.net/blog/kl-approx.html).
    """
    logs = [m - b for m, b in zip(model, base, strict=True)]
    return sum(math.expm1(log) - log for log in logs) / len(logs)


def score_passages(engine: Engine, adapters: Adapters) -> list[Passage]:
    """Score the shipped passages, each as the answer to a plain request for it."""
    entries: list[dict[str, Any]] = shipped_yaml("tuning.evaluation", "generic.yaml")
    template = make_template("plain", ())
    texts = [_Text(e["id"], template.build([], e["request"]), e["text"], True) for e in entries]
    return [
        Passage(
            text.id,
            len(scores["base"].token_logprobs),
            {role: score.total for role, score in scores.items()},
        )
        for text, scores in zip(texts, _score(engine, adapters, texts), strict=True)
    ]


def perplexity(passages: Sequence[Passage], role: ModelRole) -> float:
    """exp of the mean negative log-probability of a token, over all passages together."""
    tokens = sum(passage.tokens for passage in passages)
    return math.exp(-sum(passage.logprob[role] for passage in passages) / tokens)


@dataclass(frozen=True, slots=True)
class _Text:
    """A completion to score."""

    id: str
    messages: tuple[Message, ...]
    text: str
    complete: bool


def _score(
    engine: Engine, adapters: Adapters, texts: Sequence[_Text]
) -> Iterator[dict[ModelRole, Score]]:
    """Every text under every model, in one batch for each model."""
    by_role = for_each_role(
        adapters,
        lambda adapter: engine.score(
            [ScoreRequest(t.messages, t.text, adapter, t.complete) for t in texts]
        ),
    )
    for at in range(len(texts)):
        yield {role: scores[at] for role, scores in by_role.items()}
