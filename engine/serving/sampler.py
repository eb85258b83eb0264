"""The next token from a row of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.request import SamplingParams

# Most nuclei are far smaller than the vocabulary; looking at this many first avoids sorting it.
NUCLEUS_GUESS = 256


class Sampler:
    """One stream's draws: its parameters and its own random generator, so that no other stream
    can change what it says."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._generator = torch.Generator().manual_seed(params.seed)

    @property
    def is_greedy(self) -> bool:
        """Whether the next token is the plain argmax and nothing else is asked of the logits.

        An engine may then take one argmax over all such rows instead of calling the sampler.
        """
        params = self._params
        return (
            params.temperature == 0 and params.repetition_penalty == 1.0 and params.logprobs is None
        )

    def __call__(self, logits: Tensor, context_ids: Sequence[int]) -> int:
        """The next token id from `logits` (vocabulary,) after `context_ids`."""
        params = self._params
        logits = logits.float()
        if params.repetition_penalty != 1.0 and context_ids:
            logits = _penalise(logits, context_ids, params.repetition_penalty)
        if params.temperature == 0:
            return int(logits.argmax())
        logits = logits / params.temperature
        if params.top_k:
            kth = logits.topk(min(params.top_k, len(logits))).values[-1]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        probabilities, ids = _nucleus(logits.softmax(-1), params.top_p)
        if params.min_p:
            probabilities, ids = _likely_enough(probabilities, ids, params.min_p)
        drawn = torch.multinomial(probabilities, 1, generator=self._generator)
        return int(ids[drawn])


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
    for count in (min(NUCLEUS_GUESS, len(probabilities)), len(probabilities)):
        top, ids = probabilities.topk(count)
        mass_before = top.cumsum(-1) - top
        kept = int((mass_before < top_p).sum())
        if kept < count:
            break
    return top[:kept], ids[:kept]


def _likely_enough(probabilities: Tensor, ids: Tensor, min_p: float) -> tuple[Tensor, Tensor]:
    """Tokens at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, 3)."""
    kept = probabilities >= min_p * probabilities.max()
    return probabilities[kept], ids[kept]
