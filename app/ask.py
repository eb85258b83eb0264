"""`burnish ask`: one answer without a server, which is not stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from app.service import Service
from engine.errors import EngineFailure
from engine.messages import require_text
from engine.prompts.modes import CHAINS, SELF_CONSISTENCY, make_template
from engine.prompts.reasoning import final_answer, majority, split_reasoning
from engine.prompts.similarity import most_similar
from engine.request import Failed, Finished, GenerationRequest, SamplingParams, TextDelta, collect
from engine.storage import find_digest


def answer_question(
    service: Service,
    question: str,
    *,
    mode: str,
    adapter: str,
    temperature: float | None,
    max_new_tokens: int | None,
    seed: int,
    samples: int | None = None,
    show: Callable[[str], object] | None,
) -> dict[str, Any]:
    """Answer a question and return the answer as a document; `show` receives the text as it grows.

    In mode self-consistency `samples` chains of thought are drawn, with seeds from `seed` on, and
    only the answer that most of them agree on is passed to `show`.
    """
    workspace = service.workspace
    settings = workspace.settings
    examples = most_similar(workspace.examples(), question)
    template = make_template(mode, examples, settings.system_prompt)
    sampling = SamplingParams(
        temperature=settings.temperature if temperature is None else temperature,
        top_p=settings.top_p,
        max_new_tokens=max_new_tokens or settings.max_new_tokens,
        seed=seed,
    )
    messages = template.build([], require_text(question))
    count = (samples or CHAINS) if mode == SELF_CONSISTENCY else 1
    with service.slots.hold(_digest(service, adapter)) as digest:
        requests = [
            GenerationRequest(messages, replace(sampling, seed=seed + number), digest)
            for number in range(count)
        ]
        streams = service.engine.submit_many(requests)
        if count > 1:
            return _vote([collect(stream) for stream in streams], digest, show)
        for event in streams[0]:
            if isinstance(event, TextDelta) and show:
                show(event.text)
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                if show:
                    show("\n")
                return _document(event, template.has_answer_line, digest)
    raise EngineFailure("the answer ended without an end")


def _vote(
    ends: Sequence[Finished], digest: str | None, show: Callable[[str], object] | None
) -> dict[str, Any]:
    """Return the answer that most chains of thought lead to."""
    answers = [final_answer(end.text) for end in ends]
    vote = majority(answers)
    if show:
        show(f"{vote.text}\n({vote.votes} of {vote.total} samples agree)\n")
    return {
        "text": vote.text,
        "votes": vote.votes,
        "samples": vote.total,
        "answers": answers,
        "adapter": digest or "base",
        "prompt_tokens": ends[0].prompt_tokens,
        "completion_tokens": sum(end.completion_tokens for end in ends),
    }


def _document(event: Finished, answer_line: bool, digest: str | None) -> dict[str, Any]:
    reasoned = split_reasoning(event.text, answer_line=answer_line)
    return {
        "text": reasoned.answer,
        "thought": reasoned.thought,
        "finish_reason": event.reason,
        "adapter": digest or "base",
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
    }


def _digest(service: Service, adapter: str) -> str | None:
    if adapter == "base":
        return None
    if adapter == "live":
        return service.workspace.registry.live().bundle
    return find_digest(service.workspace.home.bundles, adapter)
