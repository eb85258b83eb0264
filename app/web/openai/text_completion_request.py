"""The schema of a text-completion request (OpenAI's legacy `/v1/completions`).

Every field of OpenAI's document is served or refused by name. Knows nothing of HTTP and of how the
text is generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from app.web.openai.raw_prompts import raw_prompts_of
from app.web.openai.sampling_fields import ChoiceFields, refuse_unsupported
from engine.errors import InvalidInput
from engine.request import MAX_LOGPROBS, RawPrompt, SamplingParams

DEFAULT_TOKENS = 16  # OpenAI's
MAX_TEXTS = 128  # prompts times choices: the engine's queue holds a few hundred

# As `completion_request.UNSUPPORTED_FIELDS`: OpenAI's, and those of chats that would be missed.
UNSUPPORTED_TEXT_FIELDS: Mapping[str, tuple[object, ...]] = {
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
}


class TextCompletionRequest(ChoiceFields):
    """The request body. The prompts are parsed by the thread that submits the request."""

    prompt: Any
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: object) -> object:
        """Raise `InvalidInput` for an unsupported field, so that it is not silently ignored."""
        return refuse_unsupported(data, UNSUPPORTED_TEXT_FIELDS)

    @property
    def reads_only(self) -> bool:
        """Return whether the prompt alone is wanted, without a new token."""
        return self.max_tokens == 0

    def prompts(self) -> list[RawPrompt]:
        """Return the prompts; raises `InvalidInput` or `InvalidText`."""
        return raw_prompts_of(self.prompt, "prompt", most=MAX_TEXTS // self.n)

    def samplings(self, usual: SamplingParams) -> list[SamplingParams]:
        """Return the sampling parameters of each choice, as `CompletionRequest.samplings` does.

        Where no token is wanted, one is drawn all the same, which costs nothing beside reading the
        prompt, and is left out of the response.
        """
        if self.best_of not in (None, self.n):
            raise InvalidInput("best_of is not supported; leave it out, or send the value of n")
        if self.reads_only and not self.echo:
            raise InvalidInput("max_tokens 0 needs echo to be true")
        wanted = DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens
        return self.choices_of(
            usual, max_new_tokens=1 if self.reads_only else wanted, logprobs=self.logprobs
        )
