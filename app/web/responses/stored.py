"""A stored answer as the response that it was, for its retrieval.

What the request said is read from the prompt and the sampling that are stored with the answer; its
`metadata` and `user` are not kept. Knows nothing of routes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from app.answering.answering import BASE, AnswerUpdate
from app.answering.stored_completions import StoredCompletion
from app.web.responses.documents import stored_document
from app.web.responses.request import ReasoningConfig, ResponseRequest, TextConfig
from app.web.streaming.relay import Piece
from engine.errors import EngineFailure
from engine.messages import tools_of
from engine.prompts.reasoning import untagged
from engine.request import Finished
from engine.tools import new_call_pieces
from feedback_store.records import StoredAnswer

EFFORTS: Mapping[bool | None, Literal["none", "medium"] | None] = {
    True: "medium",
    False: "none",
    None: None,
}


def retrieved_response(found: StoredCompletion) -> dict[str, Any]:
    """Return the whole response as one document."""
    answer = found.answer
    update = AnswerUpdate(
        answer.id,
        untagged(answer.thought),
        found.spoken.content,
        "streaming" if answer.status == "streaming" else "done",
        finished=_finished(answer),
        error=EngineFailure(answer.error) if answer.error else None,
        calls=found.spoken.calls,
    )
    piece = Piece(0, update.thought, update.text, update, new_call_pieces(update.calls, ()))
    return stored_document(_request(found), piece, answer.created_at, answer.finished_at)


def _finished(answer: StoredAnswer) -> Finished | None:
    """Return the end of an answer that ended well, or was stopped."""
    if answer.status not in ("done", "stopped"):
        return None
    is_cut = answer.status == "done" and not answer.complete
    tokens = answer.prompt_tokens or 0, answer.completion_tokens or 0
    return Finished("length" if is_cut else "stop", answer.text, *tokens)


def _request(found: StoredCompletion) -> ResponseRequest:
    """Return what was asked for, as far as it is stored."""
    made, rule = found.answer.sampling, found.answer.sampling.get("tool_choice")
    grammar = made.get("grammar")
    return ResponseRequest(
        input="",
        instructions=found.instructions,
        previous_response_id=found.turn.parent_answer_id,
        model=found.answer.adapter_digest or BASE,
        max_output_tokens=made.get("max_new_tokens"),
        temperature=made.get("temperature"),
        top_p=made.get("top_p"),
        top_logprobs=made.get("logprobs"),
        text=TextConfig(format=_format(grammar) if grammar else None),
        reasoning=ReasoningConfig(effort=EFFORTS[found.answer.thinking]),
        tools=[_flat(tool.as_dict()) for tool in tools_of(found.prompt)],
        tool_choice=_choice(rule) if rule else None,
        parallel_tool_calls=rule["parallel"] if rule else True,
    )


def _format(grammar: Mapping[str, str]) -> dict[str, Any]:
    if grammar["kind"] == "json_schema":
        return {"type": "json_schema", "name": "answer", "schema": json.loads(grammar["text"])}
    return {"type": "grammar", "syntax": grammar["kind"], "definition": grammar["text"]}


def _flat(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "strict": True, **tool["function"]}


def _choice(rule: Mapping[str, Any]) -> str | dict[str, Any]:
    return {"type": "function", "name": rule["name"]} if rule["name"] else str(rule["mode"])
