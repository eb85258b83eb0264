"""The rules' numbers, and every reason for which evidence gives no example. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engine.messages import is_blank
from feedback_store.records import WrittenAnswer

USABLE = ("done", "stopped")  # the statuses of answers that something can be learnt from

UNFINISHED = "empty or aborted answer"
TOO_LONG = "answer over the length limit"
RESTS_ON_TOOLS = "answer rests on results of tools"
FLAGGED = "red-flagged text"
CUT_OFF = "chosen answer is cut off"
IDENTICAL = "identical after normalisation"
NO_QUESTION = "the prompt does not end with a question"
NO_CONSENT = "no consent"
TIE = "tie"
CONTESTED = "contested"
OUTVOTED = "outvoted"
OUTRANKED = "a stronger or later statement counts"
EXCLUDED = "excluded by the operator"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near-duplicate"
OVER_CAP = "user over their cap"


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers by which evidence becomes examples."""

    max_answer_chars: int = 8_000
    # The pairs that thumbs may make of one answer: after a hundred regenerations one thumb would
    # otherwise count a hundred times
    max_thumb_pairs: int = 8
    # No user has a part in more than this share of the examples of a kind, unless in at most
    # `user_floor` of them
    user_share: float = 0.2
    user_floor: int = 50
    refusing_users: frozenset[str] = frozenset()  # whose words may not be trained on

    def is_too_long(self, text: str, thought: str) -> bool:
        """Return whether an answer and its thought together are over the limit."""
        return len(text) + len(thought) > self.max_answer_chars

    def answer_problem(self, answer: WrittenAnswer) -> str | None:
        """The reason why nothing can be learnt from an answer, or None."""
        if answer.status not in USABLE or is_blank(answer.text):
            return UNFINISHED
        if answer.tool_calls:  # its prompt has none of them
            return RESTS_ON_TOOLS
        if self.is_too_long(answer.text, answer.thought):
            return TOO_LONG
        return None


DEFAULT_RULES = Rules()
