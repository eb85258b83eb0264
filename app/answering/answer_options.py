"""The options of a question: mode, system prompt, thinking, release, sampling, documents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from app.answering.answering import LIVE
from engine.prompts.modes import CHAINS
from engine.request import SamplingParams
from feedback_store.documents.library import Collection


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """The options of one question; the defaults are the operator's.

    In mode self-consistency `samples` chains of thought vote on the answer. `system` replaces the
    operator's system prompt. `thinking` switches thoughts on or off for models that have such a
    switch (`GenerationRequest`). `adapter` is `LIVE`, a bundle, or None for the base model. With
    `documents` the question is answered from passages of that collection. `zone` is the time zone
    of the person's browser, for tools.
    """

    mode: str = "plain"
    samples: int = CHAINS
    system: str = ""
    thinking: bool | None = None
    adapter: str | None = LIVE
    sampling: SamplingParams | None = None
    documents: Collection | None = None
    zone: tzinfo | None = None
