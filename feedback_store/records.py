"""Value types of the store. Knows nothing of SQL.

What is *current* is what counts of each person's statements now: the latest vote and correction
of each user on each answer, the latest choice of each user on each comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.messages import Message

VoteValue = Literal[-1, 0, 1]
ToldKind = Literal["vote", "correction", "choice"]
ChoiceValue = Literal["left", "right", "tie", "both_bad"]
AnswerStatus = Literal["streaming", "done", "stopped", "failed", "aborted"]

OPERATOR = "operator"  # the user of what is judged on the console where nobody signs in

# Why a thumb points where it points: one word names a fault and its good twin.
GoodReason = Literal[
    "right_facts", "followed", "right_length", "safe", "good_style", "right_language", "other"
]
BadReason = Literal[
    "wrong_facts",
    "did_not_follow",
    "too_long",
    "too_short",
    "unsafe",
    "bad_style",
    "wrong_language",
    "other",
]
GOOD_REASONS: tuple[str, ...] = get_args(GoodReason)
BAD_REASONS: tuple[str, ...] = get_args(BadReason)
CHOICES: tuple[str, ...] = get_args(ChoiceValue)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and the template of the prompt that the model was shown for it."""

    id: str
    conversation_id: str
    parent_answer_id: str | None
    user_id: str
    question: str
    mode: str
    template_hash: str


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """One reply to a turn, and who wrote it. `complete` says that the model ended it itself; a
    thought from a `<think>` block has its tags."""

    id: str
    turn_id: str
    status: AnswerStatus
    text: str
    thought: str
    complete: bool
    base_digest: str
    adapter_digest: str | None
    sampling: Mapping[str, Any]

    @property
    def thinking(self) -> bool | None:
        """The switch of thoughts: on, off, or None where the template decided."""
        chosen = self.sampling.get("thinking")
        return chosen if isinstance(chosen, bool) else None

    @property
    def tool_calls(self) -> list[Mapping[str, Any]]:
        """The calls of tools on whose results it rests, with these: see `app.tools.called`."""
        calls: list[Mapping[str, Any]] = self.sampling.get("tool_calls", [])
        return calls


@dataclass(frozen=True, slots=True)
class StoredAnswer(WrittenAnswer):
    """An answer and how it was made. One that was continued and streams again was finished once."""

    seed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    created_at: float
    first_token_at: float | None
    finished_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one turn that a person sees side by side; who stood where is kept."""

    id: str
    turn_id: str
    left_answer_id: str
    right_answer_id: str
    user_id: str
    created_at: float


@dataclass(frozen=True, slots=True)
class CurrentVote:
    """A user's thumb on an answer: +1 or -1."""

    event_id: int
    answer_id: str
    user_id: str
    vote: int
    at: float
    reasons: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Rating:
    """A person's current thumb on an answer of one release."""

    event_id: int
    user_id: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class CurrentCorrection:
    """An answer as a user would have had it."""

    event_id: int
    answer_id: str
    user_id: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class CurrentChoice:
    """A user's choice between two answers."""

    event_id: int
    left_answer_id: str
    right_answer_id: str
    user_id: str
    choice: ChoiceValue
    at: float

    @property
    def answer_ids(self) -> frozenset[str]:
        """The two answers."""
        return frozenset((self.left_answer_id, self.right_answer_id))

    @property
    def winner(self) -> str | None:
        """The answer that is better, or None for a tie and for two bad ones."""
        sides = {"left": self.left_answer_id, "right": self.right_answer_id}
        return sides.get(self.choice)


CurrentStatement = CurrentVote | CurrentCorrection | CurrentChoice


@dataclass(frozen=True, slots=True)
class PromptEvidence:
    """One prompt, all its answers, and what people say of them now: all that the rules look at.

    Turns of one conversation that were shown the very same messages are one prompt. Statements
    are in the order they came. `flagged` are answers with a red flag on them or on their prompt.
    """

    conversation_id: str
    user_id: str  # who asked
    template_hash: str
    mode: str
    prompt: tuple[Message, ...]
    answers: tuple[WrittenAnswer, ...]
    votes: tuple[CurrentVote, ...] = ()
    corrections: tuple[CurrentCorrection, ...] = ()
    choices: tuple[CurrentChoice, ...] = ()
    flagged: frozenset[str] = frozenset()

    @property
    def statements(self) -> tuple[CurrentStatement, ...]:
        """The votes, then the corrections, then the choices."""
        return (*self.votes, *self.corrections, *self.choices)


DecisionAction = Literal["exclude", "include", "edit"]


@dataclass(frozen=True, slots=True)
class ExampleDecision:
    """The operator's decision about one example. `include` takes an earlier decision back."""

    example_id: str
    action: DecisionAction
    chosen: str | None = None
    rejected: str | None = None
    note: str = ""
    at: float = 0.0


# Records that come in from files


@dataclass(frozen=True, slots=True)
class ImportedVote:
    """A vote on an imported answer."""

    user: str
    vote: Literal[-1, 1]
    reasons: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ImportedAnswer:
    """An answer from a file. `model` names who wrote it, where that is known.

    One that is not complete was cut off. `flagged`: it carries a red flag.
    """

    text: str
    thought: str = ""
    complete: bool = True
    model: str = ""
    votes: tuple[ImportedVote, ...] = ()
    corrections: tuple[tuple[str, str], ...] = ()  # (user, text)
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class ImportedChoice:
    """A choice between two imported answers, by their positions in `ImportedTurn.answers`."""

    user: str
    left: int
    right: int
    choice: ChoiceValue


@dataclass(frozen=True, slots=True)
class ImportedTurn:
    """A prompt from a file, its answers, and what was said of them.

    The prompt ends with a user message. Turns with the same `conversation` are split together;
    where it is empty, turns with the same prompt are. `title` and `time` (seconds since 1970) are
    the conversation's and the question's, where the file has them; `left_at` is the answer, by its
    place, at which the person left the conversation.
    """

    prompt: tuple[Message, ...]
    answers: tuple[ImportedAnswer, ...]
    choices: tuple[ImportedChoice, ...] = ()
    conversation: str = ""
    flagged: bool = False
    title: str = ""
    time: float | None = None
    left_at: int | None = None


@dataclass(frozen=True, slots=True)
class SyncedTurn:
    """The statement of a person on another chat page about a turn's first answer, as it is now.

    `answer_names` are the answers' names there, which never change, and `at` is when the first one
    was written (seconds since 1970). Statements that are not there any more were taken back; of
    what is not `told`, nothing is known.
    """

    turn: ImportedTurn
    user: str
    answer_names: tuple[str, ...]
    at: float
    told: frozenset[ToldKind]
