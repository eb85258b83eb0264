"""One conversation into a file that its person can keep: the branch that is shown.

Knows views; knows nothing of where they come from.
"""

from __future__ import annotations

from typing import Any

from feedback_store.conversations.conversation_list import ConversationView, ShownTurn

VOTES = {1: "good", -1: "bad"}


def to_markdown(view: ConversationView) -> str:
    """Questions and answers to read, with what the person said of them; thoughts are left out."""
    parts = [f"# {view.summary.title}"]
    for shown in view.turns:
        parts += ["## Question", shown.turn.question, "## Answer", shown.answer.text]
        parts += _statements(shown)
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def to_json(view: ConversationView) -> dict[str, Any]:
    """Everything that is shown, with ids, times (seconds since 1970), thoughts and who answered."""
    summary = view.summary
    return {
        "id": summary.id,
        "title": summary.title,
        "pinned": summary.pinned,
        "updated_at": summary.updated_at,
        "turns": [_turn(shown) for shown in view.turns],
    }


def _statements(shown: ShownTurn) -> list[str]:
    """A vote with its reasons and comment, a correction, a flag: a quoted line each."""
    said: list[str] = []
    if shown.vote:
        reasons = ", ".join(reason.replace("_", " ") for reason in shown.reasons)
        said.append(f"Vote: {VOTES[shown.vote]}" + f" ({reasons})" * bool(reasons))
    if shown.comment:
        said.append(f"Comment: {shown.comment}")
    if shown.flagged:
        said.append("Flagged: not to be used")
    if shown.correction is not None:
        said.append(f"Correction:\n{shown.correction}")
    return ["\n".join(f"> {line}".rstrip() for line in each.split("\n")) for each in said]


def _turn(shown: ShownTurn) -> dict[str, Any]:
    answer = shown.answer
    return {
        "id": shown.turn.id,
        "asked_at": shown.created_at,
        "question": shown.turn.question,
        "mode": shown.turn.mode,
        "example_ids": list(shown.example_ids),
        "answer": {
            "id": answer.id,
            "status": answer.status,
            "complete": answer.complete,
            "text": answer.text,
            "thought": answer.thought,
            "base": answer.base_digest,
            "adapter": answer.adapter_digest,
            "sampling": dict(answer.sampling),
            "seed": answer.seed,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "begun_at": answer.created_at,
            "first_token_at": answer.first_token_at,
            "finished_at": answer.finished_at,
            "error": answer.error,
        },
        "vote": shown.vote,
        "reasons": list(shown.reasons),
        "comment": shown.comment,
        "correction": shown.correction,
        "flagged": shown.flagged,
    }
