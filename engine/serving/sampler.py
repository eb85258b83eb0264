"""Sampling: the choice of the next token from a row of logits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.request import SamplingParams
from engine.serving.grammar import GrammarMatcher

# A lower temperature is greedy, as in vLLM: divided by much less, logits leave the range of a float
LEAST_TEMPERATURE = 1e-5


class Sampler:
    """Draws the tokens of one stream.

    It has its own random generator and counts, so that no other stream can change its text.
    """

    def __init__(self, params: SamplingParams, grammar: GrammarMatcher | None = None) -> None:
        """`grammar` is the compiled one of the parameters."""
        self._params = params
        self._grammar = grammar
        self._generator = torch.Generator().manual_seed(params.seed)
        self._is_cold = params.temperature < LEAST_TEMPERATURE
        self._cuts_tokens = params.top_p < 1 or params.top_k > 0 or params.min_p > 0
        self._bias_ids = torch.tensor([token_id for token_id, _ in params.logit_bias]).long()
        self._bias = torch.tensor([bias for _, bias in params.logit_bias], dtype=torch.float32)
        self._counts_chosen = params.presence_penalty != 0 or params.frequency_penalty != 0
        self._chosen: Counter[int] = Counter()

    @property
    def is_greedy(self) -> bool:
        """Return whether the next token is the plain argmax, and no log-probability is wanted.

        One argmax over all such rows then replaces the calls of their samplers.
        """
        params = self._params
        return (
            self._is_cold
            and params.repetition_penalty == 1.0
            and not params.logit_bias
            and not self._counts_chosen
            and params.logprobs is None
            and self._grammar is None
        )

    @property
    def is_complete(self) -> bool:
        """Return whether the tokens make a whole sentence of the grammar that cannot go on."""
        return self._grammar is not None and self._grammar.is_complete

    def __call__(self, logits: Tensor, context_ids: Sequence[int]) -> int:
        """The next token id from `logits` (vocabulary,) after `context_ids`.

        All parameters that `SamplingParams` accepts give a token if at least one logit is finite.
        """
        logits = self._penalised(logits.float(), context_ids)
        token_id = self._chosen_from(logits)
        if self._counts_chosen:
            self._chosen[token_id] += 1
        return token_id

    def _chosen_from(self, logits: Tensor) -> int:
        """Choose a token; with a grammar, as from the logits of the allowed tokens alone.

        Where no token is cut off, one is drawn from all of them first. If it is allowed, it is
        distributed as among the allowed ones (rejection sampling), and the mask is not needed.
        """
        if self._grammar is None:
            return self._choose(logits)
        if self._is_cold or not self._cuts_tokens:
            token_id = self._choose(logits)
            if self._grammar.advance_if_allowed(token_id):
                return token_id
        token_id = self._choose(self._grammar.allow(logits))
        self._grammar.advance(token_id)
        return token_id

    def _choose(self, logits: Tensor) -> int:
        return int(logits.numpy().argmax()) if self._is_cold else self._drawn(logits)

    def _penalised(self, logits: Tensor, context_ids: Sequence[int]) -> Tensor:
        """Logits after bias and penalties, in the order of vLLM."""
        params = self._params
        if params.logit_bias:
            logits = logits.index_add(0, self._bias_ids, self._bias)
        if params.repetition_penalty != 1.0 and context_ids:
            logits = _penalise(logits, context_ids, params.repetition_penalty)
        if self._chosen:
            ids, counts = zip(*self._chosen.items(), strict=True)
            lost = params.frequency_penalty * torch.tensor(counts) + params.presence_penalty
            logits = logits.index_add(0, torch.tensor(ids), -lost.float())
        return logits

    def _drawn(self, logits: Tensor) -> int:
        params = self._params
        logits = (logits - logits.max()) / params.temperature  # at most 0: no overflow
        if params.top_k:
            kth = logits.topk(min(params.top_k, len(logits))).values[-1]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        probabilities, ids = _nucleus(logits.softmax(-1), params.top_p)
        if params.min_p:
            probabilities, ids = _likely_enough(probabilities, ids, params.min_p)
        return int(ids[draw(probabilities, self._generator)])


def most_likely(logits: Tensor) -> list[int]:
    """Return the likeliest token of each row of logits (rows, vocabulary), on the CPU.

    numpy's argmax takes a fifteenth of the time of torch's (`benchmarks.sampling`).
    """
    likeliest: list[int] = logits.float().numpy().argmax(-1).tolist()
    return likeliest


def draw(weights: Tensor, generator: torch.Generator) -> int:
    """Draw an index in proportion to weights (n,), by the inverse of their cumulative sum.

    `torch.multinomial` draws a random number for each of the n, which takes twenty times as long
    for a whole vocabulary (`benchmarks.sampling`). Raises `ValueError` where the sum is no positive
    number.
    """
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = float(cumulative[-1])
    if not 0 < total < math.inf:
        raise ValueError(f"no token can be drawn: the weights add up to {total}")
    uniform = float(torch.rand((), dtype=torch.float64, generator=generator))
    point = min(uniform * total, math.nextafter(total, 0))  # the product may be rounded up to all
    return int(torch.searchsorted(cumulative, point, right=True))  # never one of weight 0


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits (rows, vocabulary) with -inf for `ids` (n,); the same object where `ids` is empty."""
    return logits.index_fill(-1, ids, -torch.inf) if len(ids) else logits


def token_logprobs(
    logits: Tensor, token_id: int, top: int
) -> tuple[float, list[tuple[int, float]]]:
    """Log-probability (natural log) of a token under `logits` (vocabulary,), and the `top` most
    likely tokens as (id, log-probability), the likeliest first."""
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(min(top, len(logprobs)))
    return float(logprobs[token_id]), list(zip(ids.tolist(), values.tolist(), strict=True))


def _penalise(logits: Tensor, context_ids: Sequence[int], penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of seen tokens (Keskar et al. 2019, 4.1)."""
    seen = torch.tensor(sorted(set(context_ids)))
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest most likely tokens whose mass reaches `top_p` (Holtzman et al. 2020, 3.1)."""
    if top_p >= 1:
        return probabilities, torch.arange(len(probabilities))
    every = probabilities.numpy()
    # Tokens less likely than this have less than 1 - top_p in all, so that none is in the nucleus.
    # To sort the few others takes a third of the time of torch's topk
    least = min((1 - top_p) / len(every), every.max())
    ids = np.flatnonzero(every >= least)
    ids = ids[np.argsort(-every[ids])]
    falling = torch.from_numpy(every[ids])
    mass_before = falling.cumsum(-1) - falling
    kept = max(1, int((mass_before < top_p).sum()))  # one at least, however small top_p is
    return falling[:kept], torch.from_numpy(ids[:kept])


def _likely_enough(probabilities: Tensor, ids: Tensor, min_p: float) -> tuple[Tensor, Tensor]:
    """Tokens at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, 3)."""
    kept = probabilities >= min_p * probabilities.max()
    return probabilities[kept], ids[kept]
