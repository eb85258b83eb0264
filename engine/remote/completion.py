"""Requests in the form of vLLM's `/v1/completions`, and what it answers.

Prompts and answers are token ids, rendered and decoded here: so a model is shown what our own
engine would show it, and its text is split and stopped by the same code.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx

from engine.errors import EngineFailure, InvalidInput, Overloaded
from engine.messages import tools_of
from engine.request import GenerationRequest, SamplingParams

MAX_LOGPROB_TOKEN_IDS = 128  # vLLM's limit of that name, in a request


def generation_body(
    request: GenerationRequest, model: str, ids: Sequence[int], max_tokens: int, ends: Sequence[int]
) -> dict[str, Any]:
    """The body of a request for one streamed answer.

    Raises `InvalidInput` for what is not served.
    """
    _require_served(request)
    sampling = request.sampling
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": max_tokens,
        "stream": True,
        "return_token_ids": True,
        "stop_token_ids": [] if sampling.ignore_eos else sorted(ends),
        "ignore_eos": sampling.ignore_eos,
        **_sampling_fields(sampling),
    }


def scoring_bodies(
    model: str, ids: Sequence[int], completion_tokens: int
) -> Iterator[tuple[dict[str, Any], Sequence[int]]]:
    """Yield requests for the log-probabilities of a text's last tokens, and the tokens of each.

    Each token is asked for as the one that follows those before it; vLLM's prefix cache keeps what
    they share. Its `prompt_logprobs` would give all at once, but with adapters they read another
    request's (vllm-project/vllm#16668), and on CPUs the server dies of it.
    """
    first = len(ids) - completion_tokens
    for begin in range(first, len(ids), MAX_LOGPROB_TOKEN_IDS):
        places = range(begin, min(begin + MAX_LOGPROB_TOKEN_IDS, len(ids)))
        scored = [ids[at] for at in places]
        body = {
            "model": model,
            "prompt": [list(ids[:at]) for at in places],
            "max_tokens": 1,
            "temperature": 0,
            "ignore_eos": True,
            "logprobs": 1,  # vLLM wants it beside the next one
            "logprob_token_ids": sorted(set(scored)),
            "return_tokens_as_token_ids": True,
        }
        yield body, scored


def read_logprobs(document: Any, scored: Sequence[int]) -> list[float]:
    """The log-probabilities of the tokens of one such request; raises `EngineFailure`."""
    try:
        choices = sorted(document["choices"], key=lambda choice: int(choice["index"]))
        return [
            float(choice["logprobs"]["top_logprobs"][0][f"token_id:{token_id}"])
            for choice, token_id in zip(choices, scored, strict=True)
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineFailure("the remote engine returned no log-probabilities") from error


async def read_tokens(response: httpx.Response) -> AsyncIterator[list[int]]:
    """The new tokens of each event of a streamed answer.

    Raises `Overloaded` and `EngineFailure` for a refusal, and where the stream breaks off.
    """
    if not response.is_success:
        text = (await response.aread()).decode(errors="replace")[:500]
        if response.status_code in (429, 503):
            raise Overloaded("the remote engine is busy; try again later")
        raise EngineFailure(f"the remote engine refuses: status {response.status_code}: {text}")
    async for line in response.aiter_lines():
        if not line.startswith("data: "):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        document = json.loads(data)
        if "error" in document:
            raise EngineFailure(f"the remote engine failed: {document['error'].get('message')}")
        for choice in document["choices"]:
            yield [int(token_id) for token_id in choice.get("token_ids") or ()]
    raise EngineFailure("the remote engine's answer broke off")


def _sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    return {
        "temperature": 0 if greedy else sampling.temperature,
        "top_p": 1 if greedy else sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias} or None,
        "seed": sampling.seed,
    }


def _require_served(request: GenerationRequest) -> None:
    asked = {
        "response_format": request.sampling.grammar is not None,
        "tools": bool(tools_of(request.messages)),
        "logprobs": request.sampling.logprobs is not None,
        "echo": request.echo,
    }
    if refused := [name for name, is_asked in asked.items() if is_asked]:
        raise InvalidInput(f"{', '.join(refused)}: not served by a remote engine")
