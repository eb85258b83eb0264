"""The fields of sampling, which requests of every format share.

A number in quotation marks is refused, null is the default, and fields outside an API's document
are ignored. Knows nothing of HTTP and of prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.answering.answering import LIVE
from engine.errors import InvalidInput
from engine.request import MAX_LOGIT_BIAS, SEEDS, SamplingParams

MAX_CHOICES = 16
MAX_STOPS = 16
TOKEN_ID_DIGITS = 10
StopString = Annotated[str, Field(max_length=1000)]
StopStrings = Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)]
CallersUser = Annotated[str, Field(max_length=256)]  # the person on whose behalf a caller asks


class Lenient(BaseModel):
    """A model that ignores unknown fields and reads null as the default, as OpenAI's clients
    expect; a number in quotation marks is refused."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: object) -> object:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


class StreamOptions(Lenient):
    """Options of a streamed response."""

    include_usage: bool = False


class SamplingFields(Lenient):
    """The fields that requests of every kind have, whichever format they are in."""

    model: str = LIVE
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    ignore_eos: bool = False
    timeout_seconds: float | None = None

    def sampling(
        self, usual: SamplingParams, stop: str | Sequence[str] = (), **own: Any
    ) -> SamplingParams:
        """Return the sampling parameters; `own` are those of one kind of request.

        Parameters that the body leaves out come from `usual`, the operator's. Raises
        `InvalidInput` for values out of range.
        """
        stops = [stop] if isinstance(stop, str) else stop
        return SamplingParams(
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_logit_bias(self.logit_bias),
            seed=usual.seed if self.seed is None else self.seed % SEEDS,
            stop=tuple(filter(None, stops)),  # an empty text stops nothing, as in llama.cpp
            ignore_eos=self.ignore_eos,
            **own,
        )


class ChoiceFields(SamplingFields):
    """The fields of OpenAI's completions, of chats and of texts: several choices, and their end."""

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream_options: StreamOptions = StreamOptions()
    max_tokens: int | None = None
    stop: StopString | StopStrings = []
    user: CallersUser = ""

    def choices_of(self, usual: SamplingParams, **own: Any) -> list[SamplingParams]:
        """Return the sampling parameters of each choice, as `sampling` does."""
        first = self.sampling(usual, self.stop, **own)
        return [replace(first, seed=(first.seed + index) % SEEDS) for index in range(self.n)]


def refuse_unsupported(
    data: object, unsupported: Mapping[str, tuple[object, ...]], within: str = ""
) -> object:
    """Return the body; raises `InvalidInput` for a field of `unsupported`, so that it is not
    silently ignored. Each comes with the values that request nothing, like null. `within` is where
    the fields stand ("reasoning.")."""
    if isinstance(data, dict):
        for name, neutral in unsupported.items():
            value = data.get(name)
            if value is not None and value not in neutral:
                raise InvalidInput(_unsupported(f"{within}{name}", neutral))
    return data


def _unsupported(name: str, neutral: tuple[object, ...]) -> str:
    allowed = " or ".join(["null", *map(json.dumps, neutral)])
    return f"{name} is not supported; leave it out, or send {allowed}"


def _logit_bias(given: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Parse biases by token id; a JSON object has its keys as text."""
    if len(given) > MAX_LOGIT_BIAS:
        raise InvalidInput(f"logit_bias may name at most {MAX_LOGIT_BIAS} tokens")
    for name, bias in given.items():
        if not (name.isascii() and name.isdigit() and len(name) <= TOKEN_ID_DIGITS):
            raise InvalidInput(f"logit_bias: {name[:40]!r} is not a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise InvalidInput(f"logit_bias.{name} must be a number")
    return tuple((int(name), bias) for name, bias in given.items())
