"""What all importers share: messages in several spellings, and the turns that come of them.

A pair is a turn with two answers and a choice; a lone judgement and a demonstration are a turn with
one answer and one vote. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import InvalidInput
from engine.messages import Message, Role, clean_text, is_blank, require_text
from engine.prompts.reasoning import join_reasoning
from engine.storage import digest_json
from feedback_store.formats.fields import Row, any_text, as_list, as_mapping, truth, value
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn, ImportedVote

Ranks = Literal["all", "adjacent"]


@dataclass(frozen=True, slots=True)
class Options:
    """Who says what a file says where it does not say so, and which ranks become choices."""

    user: str = "import"
    ranks: Ranks = "all"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a format writes a message: the keys, and its names for our roles."""

    role_key: str
    text_key: str
    roles: Mapping[str, Role]


OPENAI = Spelling("role", "content", {"system": "system", "user": "user", "assistant": "assistant"})
SHAREGPT = Spelling(
    "from",
    "value",
    {"system": "system", "human": "user", "user": "user", "gpt": "assistant",
     "assistant": "assistant"},
)  # fmt: skip


def message_of(item: object, spelling: Spelling, what: str) -> Message:
    """One message."""
    row = as_mapping(item, what)
    role = value(row, spelling.role_key)
    if not isinstance(role, str) or role not in spelling.roles:
        known = ", ".join(spelling.roles)
        raise InvalidInput(f"unknown role {str(role)[:40]!r} in {what!r}; known roles: {known}")
    content = value(row, spelling.text_key)
    if not isinstance(content, str):
        raise InvalidInput(f"{spelling.text_key!r} in {what!r} must be text")
    return Message(spelling.roles[role], clean_text(content))


def messages_of(found: object, spelling: Spelling, what: str) -> tuple[Message, ...]:
    """A list of messages."""
    return tuple(message_of(item, spelling, what) for item in as_list(found, what))


def system_of(row: Row) -> tuple[Message, ...]:
    """The record's own `system` text as a message, if there is one."""
    system = any_text(row, "system")
    return () if is_blank(system) else (Message("system", system),)


def asked(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt, which must end with what a user said."""
    if not prompt or prompt[-1].role != "user":
        raise InvalidInput("the prompt must end with a user message")
    require_text(prompt[-1].content, what="question")
    return prompt


def one_answer(messages: tuple[Message, ...], what: str) -> str:
    """The text of the one assistant message that a completion must be."""
    if len(messages) != 1 or messages[0].role != "assistant":
        raise InvalidInput(f"{what!r} must be one assistant message")
    return messages[0].content


def side_of(row: Row, name: str, text: str) -> ImportedAnswer:
    """A completion with the thought and the flag that our exports write beside it."""
    return ImportedAnswer(
        require_text(text, what="answer"),
        thought=any_text(row, f"{name}_thought"),
        complete=truth(row, f"{name}_complete", default=True),
    )


def whole_side_of(row: Row, name: str, text: str) -> ImportedAnswer:
    """The same where the completion begins with the thought, as a model writes it."""
    side = side_of(row, name, text)
    head = join_reasoning(side.thought, "")
    if not text.startswith(head):
        raise InvalidInput(f"{name!r} does not begin with its thought")
    return replace(side, text=require_text(text.removeprefix(head), what="answer"))


def pair_turn(
    prompt: tuple[Message, ...],
    better: ImportedAnswer,
    worse: ImportedAnswer,
    user: str,
    conversation: str = "",
) -> ImportedTurn:
    """`user` prefers one answer to the other, and says nothing of either alone."""
    choice = ImportedChoice(user, 0, 1, "left")
    return ImportedTurn(asked(prompt), (better, worse), (choice,), conversation)


def judged_turn(
    prompt: tuple[Message, ...],
    answer: ImportedAnswer,
    good: bool,
    user: str,
    conversation: str = "",
) -> ImportedTurn:
    """`user` calls one answer good or bad."""
    return ImportedTurn(asked(prompt), (_judged(answer, good, user),), conversation=conversation)


def demonstration_turns(messages: tuple[Message, ...], user: str) -> Iterator[ImportedTurn]:
    """One turn for each assistant message: all that went before is its prompt.

    A greeting before anybody asked is part of the prompts only. Several turns share a conversation
    that depends on the texts alone; a single one is grouped by its prompt, as pairs are.
    """
    if not messages or messages[-1].role != "assistant":
        raise InvalidInput("the conversation must end with an assistant message")
    said = [at for at, message in enumerate(messages) if message.role == "assistant"]
    targets = [at for at in said if any(m.role == "user" for m in messages[:at])]
    if not targets:
        raise InvalidInput("the conversation has no user message")
    key = digest_json([message.as_dict() for message in messages]) if len(targets) > 1 else ""
    for at in targets:
        answer = ImportedAnswer(require_text(messages[at].content, what="answer"))
        yield judged_turn(messages[:at], answer, True, user, key)


def _judged(answer: ImportedAnswer, good: bool, user: str) -> ImportedAnswer:
    return replace(answer, votes=(ImportedVote(user, 1 if good else -1),))
