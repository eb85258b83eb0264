"""Helpers of all importers: messages in both spellings, and the turns made of them.

A pair is a turn with two answers and a choice; a lone judgement and a demonstration are a turn with
one answer and one vote. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import InvalidInput
from engine.messages import (
    Message,
    Role,
    clean_text,
    is_blank,
    question_index,
    question_of,
    require_text,
)
from engine.prompts.reasoning import (
    Reasoned,
    join_reasoning,
    split_reasoning,
    with_opening,
    without_thoughts,
)
from engine.storage import digest_json
from feedback_store.formats.fields import (
    ENDS_IN_THOUGHT,
    HOLDS_MEDIA,
    OFFERS_TOOLS,
    USES_TOOLS,
    RawRow,
    UnusableRecord,
    as_list,
    as_mapping,
    optional_text,
    truth,
    value,
)
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn, ImportedVote

Ranks = Literal["all", "adjacent"]


@dataclass(frozen=True, slots=True)
class Options:
    """The user of statements without one, and the ranks that become choices."""

    user: str = "import"
    ranks: Ranks = "all"


# OpenAI's names of the roles, ShareGPT's, and those of messages to and from tools in both
MESSAGE_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "gpt": "assistant",
}
TOOL_MESSAGE_ROLES = ("tool", "function", "function_call", "observation")
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")


def read_message(item: object, what: str) -> Message:
    """One message as OpenAI writes it (`role`, `content`) or as ShareGPT does (`from`, `value`).

    A thought beside an answer is put before it, as a model writes it. Raises `UnusableRecord` for
    messages of tools and for pictures.
    """
    row = as_mapping(item, what)
    role = value(row, "from" if "from" in row else "role")
    if role in TOOL_MESSAGE_ROLES or row.get("tool_calls") or row.get("function_call"):
        raise UnusableRecord(USES_TOOLS)
    if row.get("tools"):
        raise UnusableRecord(OFFERS_TOOLS)
    if not isinstance(role, str) or role not in MESSAGE_ROLES:
        known = ", ".join(MESSAGE_ROLES)
        raise InvalidInput(f"unknown role {str(role)[:40]!r} in {what!r}; known roles: {known}")
    content = _content(row, what)
    thoughts = (row.get(key) for key in THOUGHT_KEYS if MESSAGE_ROLES[role] == "assistant")
    thought = next((found for found in thoughts if isinstance(found, str) and found.strip()), "")
    return Message(MESSAGE_ROLES[role], clean_text(with_thought(thought, content)))


def read_messages(found: object, what: str) -> tuple[Message, ...]:
    """A list of messages."""
    return tuple(read_message(item, what) for item in as_list(found, what))


def with_thought(thought: str, answer: str) -> str:
    """A thought and its answer as think models write them."""
    said = Reasoned(thought.strip(), answer, in_block=bool(thought.strip()))
    return join_reasoning(said.stored_thought, answer)


def _content(row: RawRow, what: str) -> str:
    """A message's text; that of several parts is joined by line ends."""
    key = "value" if "value" in row else "content"
    content = value(row, key)
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        if any(part.get("type") != "text" for part in content):
            raise UnusableRecord(HOLDS_MEDIA)
        return "\n".join(optional_text(part, "text") for part in content)
    if not isinstance(content, str):
        raise InvalidInput(f"{key!r} in {what!r} must be text")
    return content


def system_of(row: RawRow) -> tuple[Message, ...]:
    """The record's own `system` text as a message, if there is one."""
    system = optional_text(row, "system")
    return () if is_blank(system) else (Message("system", system),)


def asked(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt, which must end with a question, without the thoughts of earlier answers."""
    if question_index(prompt) is None:
        raise InvalidInput("the prompt must end with a user message")
    require_text(question_of(prompt), what="question")
    return without_thoughts(prompt)


def one_answer(messages: tuple[Message, ...], what: str) -> str:
    """The text of the one assistant message that a completion must be."""
    if len(messages) != 1 or messages[0].role != "assistant":
        raise InvalidInput(f"{what!r} must be one assistant message")
    return messages[0].content


def answer_of(text: str) -> ImportedAnswer:
    """An imported answer, with the thought split off from what the model wrote."""
    said = split_reasoning(with_opening(text))
    if said.thought and is_blank(said.answer):
        raise UnusableRecord(ENDS_IN_THOUGHT)
    return ImportedAnswer(require_text(said.answer, what="answer"), thought=said.stored_thought)


def side_of(row: RawRow, name: str, text: str) -> ImportedAnswer:
    """A completion. Where our exports wrote its thought beside it, the text is the answer alone."""
    if not _is_our_own(row, name):
        return answer_of(text)
    return ImportedAnswer(
        require_text(text, what="answer"),
        thought=optional_text(row, f"{name}_thought"),
        complete=truth(row, f"{name}_complete", default=True),
    )


def whole_side_of(row: RawRow, name: str, text: str) -> ImportedAnswer:
    """A completion where our exports wrote the thought before the answer, too."""
    side = side_of(row, name, text)
    if not _is_our_own(row, name):
        return side
    head = join_reasoning(side.thought, "")
    if not text.startswith(head):
        raise InvalidInput(f"{name!r} does not begin with its thought")
    return replace(side, text=require_text(text.removeprefix(head), what="answer"))


def _is_our_own(row: RawRow, name: str) -> bool:
    return f"{name}_thought" in row or f"{name}_complete" in row


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
        yield judged_turn(messages[:at], answer_of(messages[at].content), True, user, key)


def _judged(answer: ImportedAnswer, good: bool, user: str) -> ImportedAnswer:
    return replace(answer, votes=(ImportedVote(user, 1 if good else -1),))
