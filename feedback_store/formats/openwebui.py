"""Open WebUI's feedback export (admin panel, Evaluations, Feedbacks, Export): a JSON array.

A row is one rating: `user_id`, `data` (rating, model_id, sibling_model_ids, reason, comment,
details), `meta` (chat_id, message_id), and in `snapshot.chat.chat.history.messages` the whole chat
by message id, each naming its parent. The shape is that of `feedbackHandler` in its
ResponseMessage.svelte and of its models/feedbacks.py. A message that was edited keeps in
`originalContent` what the model wrote.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from engine.errors import InvalidInput
from engine.messages import Message, clean_text, is_blank
from engine.prompts.reasoning import split_reasoning, with_opening
from feedback_store.formats.chats import moment
from feedback_store.formats.fields import (
    USES_TOOLS,
    RawRow,
    UnusableRecord,
    as_mapping,
    mapping,
    optional_text,
    required_text,
)
from feedback_store.formats.turns import (
    Options,
    answer_of,
    asked,
    read_message,
    system_of,
    with_thought,
)
from feedback_store.records import (
    ImportedAnswer,
    ImportedChoice,
    ImportedTurn,
    ImportedVote,
    SyncedTurn,
    ToldKind,
)

# The words of its RateComment.svelte that mean one of ours; the others are "other".
REASONS: Mapping[str, str] = {
    "accurate_information": "right_facts",
    "followed_instructions_perfectly": "followed",
    "showcased_creativity": "good_style",
    "positive_attitude": "good_style",
    "not_factually_correct": "wrong_facts",
    "didnt_fully_follow_instructions": "did_not_follow",
    "too_verbose": "too_long",
    "dont_like_the_style": "bad_style",
}
ORIGINAL = "originalContent"  # what the model wrote, once a person has edited the message
RATINGS: Mapping[object, Literal[-1, 0, 1]] = {
    1: 1,
    "1": 1,
    -1: -1,
    "-1": -1,
    0: 0,
    "0": 0,
    None: 0,
}
BLOCK = re.compile(
    r'(?m)^[ \t]*<details type="(?P<type>reasoning|tool_calls|code_interpreter)"[^>]*>'
    r"\s*(?:<summary>[^<]*</summary>)?(?P<text>(?s:.*?))(?:</details>|\Z)\s*"
)


def rating_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn with the rated answer; beside it the answers it won against, if it did.

    Open WebUI counts a thumb up as a win over the answers that stood beside it
    (`sibling_model_ids`) and a thumb down as a defeat. The second is not taken over: two answers
    can both be bad.
    """
    del options  # each rating names its user
    yield synced_rating(row).turn


def synced_rating(row: RawRow) -> SyncedTurn:
    """A rating as it stands now: its thumb, its siblings, and the person's words if they edited."""
    data, meta = mapping(row, "data"), mapping(row, "meta")
    chat = _chat(row)
    said = mapping(mapping(chat, "history"), "messages")
    rated = _message(said, required_text(meta, "message_id"))
    user = user_named(row)
    vote = _vote(data, user)
    answer = _answer(rated, vote, user)
    siblings = list(_siblings(said, rated, data)) if vote and vote.vote > 0 else []
    turn = ImportedTurn(
        prompt=asked(_prompt(chat, said, rated)),
        answers=(answer, *(_answer(each, None, user) for each in siblings)),
        choices=tuple(
            ImportedChoice(user, 0, place, "left") for place in range(1, len(siblings) + 1)
        ),
        conversation=optional_text(meta, "chat_id"),
    )
    at = moment(rated.get("timestamp")) or moment(row.get("created_at")) or 0.0
    return _synced(turn, user, [rated, *siblings], said, at, {"vote", "choice"})


def edited_messages(row: RawRow) -> list[str]:
    """The names of the messages of a chat that its person edited at some time."""
    said = mapping(mapping(mapping(row, "chat"), "history"), "messages")
    found = ((name, as_mapping(item, "messages")) for name, item in said.items())
    return [
        name
        for name, message in found
        if message.get("role") == "assistant" and optional_text(message, ORIGINAL)
    ]


def synced_edit(row: RawRow, name: str) -> SyncedTurn:
    """An answer of a chat that its person edited; the words that stand there are a correction."""
    chat, user = mapping(row, "chat"), user_named(row)
    said = mapping(mapping(chat, "history"), "messages")
    message = _message(said, name)
    turn = ImportedTurn(
        prompt=asked(_prompt(chat, said, message)),
        answers=(_answer(message, None, user),),
        conversation=required_text(row, "id"),
    )
    at = moment(message.get("timestamp")) or moment(row.get("updated_at")) or 0.0
    return _synced(turn, user, [message], said, at, set())


def user_named(row: RawRow) -> str:
    """Our id of the person whose row it is."""
    return f"openwebui:{required_text(row, 'user_id')}"


def _synced(
    turn: ImportedTurn,
    user: str,
    messages: Sequence[RawRow],
    said: RawRow,
    at: float,
    told: set[ToldKind],
) -> SyncedTurn:
    """Name the answers by their messages; an edit is told where the first one was ever edited."""
    keys = {id(each): key for key, each in said.items()}
    names = tuple(f"{turn.conversation}/{keys[id(each)]}" for each in messages)
    edited: set[ToldKind] = {"correction"} if optional_text(messages[0], ORIGINAL) else set()
    return SyncedTurn(turn, user, names, at, frozenset(told | edited))


def _chat(row: RawRow) -> RawRow:
    if row.get("snapshot") is None:
        raise InvalidInput("there is no 'snapshot', and so no text")
    return mapping(mapping(mapping(row, "snapshot"), "chat"), "chat")


def _message(said: RawRow, identity: str) -> RawRow:
    if identity not in said:
        raise InvalidInput("the chat lacks a message that is named in it")
    return as_mapping(said[identity], "messages")


def _prompt(chat: RawRow, said: RawRow, rated: RawRow) -> tuple[Message, ...]:
    """The messages from the root to the question; of earlier answers the text alone."""
    path: list[Message] = []
    seen: set[str] = set()
    parent = optional_text(rated, "parentId")
    while parent:
        if parent in seen:
            raise InvalidInput("the chat's messages go round in a circle")
        seen.add(parent)
        row = _message(said, parent)
        message = read_message(row, "messages")
        if message.role == "assistant":
            message = Message("assistant", unfolded(message.content))
        path.append(message)
        parent = optional_text(row, "parentId")
    params = chat.get("params")
    system = system_of(params) if isinstance(params, dict) else ()
    return (*system, *reversed(path))


def _answer(row: RawRow, vote: ImportedVote | None, user: str) -> ImportedAnswer:
    """A message as its model wrote it; what a person made of it is their correction."""
    message = read_message(row, "messages")
    if message.role != "assistant":
        raise InvalidInput("the rated message is not an assistant's")
    written = clean_text(optional_text(row, ORIGINAL)) or message.content
    if _uses_tools(written):
        raise UnusableRecord(USES_TOOLS)
    answer = answer_of(unfolded(written))
    return replace(
        answer,
        complete=row.get("done") is not False,
        model=model_of(row),
        votes=(vote,) if vote else (),
        corrections=tuple((user, text) for text in _edited(message.content, answer.text)),
    )


def _edited(content: str, written: str) -> Iterator[str]:
    """The words that stand in place of what a model wrote, if they are others."""
    text = split_reasoning(with_opening(unfolded(content))).answer
    if not is_blank(text) and text.strip() != written.strip():
        yield text.strip()


def _uses_tools(content: str) -> bool:
    return any(block["type"] != "reasoning" for block in BLOCK.finditer(content))


def unfolded(content: str) -> str:
    """A message as a model writes it: its thoughts in a think block before the answer.

    Open WebUI keeps each thought, each call of a tool and each run of code as a folded block, in
    the order they came.
    """
    blocks = list(BLOCK.finditer(content))
    thoughts = (_thought(block["text"]) for block in blocks if block["type"] == "reasoning")
    thought = "\n\n".join(filter(None, thoughts))
    return with_thought(thought, BLOCK.sub("", content)) if blocks else content


def _thought(quoted: str) -> str:
    """The text of a folded thought, which is quoted line by line."""
    quoted = quoted.strip()
    if quoted.startswith("&gt;"):  # newer versions escape the block as HTML
        quoted = html.unescape(quoted)
    return "\n".join(re.sub(r"^> ?", "", line) for line in quoted.split("\n")).strip()


def _siblings(said: RawRow, rated: RawRow, data: RawRow) -> Iterator[RawRow]:
    """Other finished answers to the same question by models that the rating names."""
    names = data.get("sibling_model_ids")
    named = names if isinstance(names, list) else []
    for item in said.values():
        other = as_mapping(item, "messages")
        beside = other is not rated and other.get("parentId") == rated.get("parentId")
        finished = other.get("done") is not False and optional_text(other, "content")
        answers = other.get("role") == "assistant" and not _uses_tools(
            optional_text(other, "content")
        )
        if beside and finished and answers and model_of(other) in named:
            yield other


def model_of(row: RawRow) -> str:
    """The name of the model that wrote a message; "" where none is given."""
    return optional_text(row, "selectedModelId") or optional_text(row, "model")


def _vote(data: RawRow, user: str) -> ImportedVote | None:
    rating = data.get("rating")
    if isinstance(rating, bool | list | dict) or rating not in RATINGS:
        raise InvalidInput("'rating' must be 1, 0 or -1")
    vote = RATINGS[rating]
    if not vote:
        return None
    reasons, comment = _reasons(data, vote)
    return ImportedVote(user, vote, reasons, clean_text(comment, what="comment"))


def _reasons(data: RawRow, vote: int) -> tuple[tuple[str, ...], str]:
    """Our word for its reason, and a comment that keeps what our words do not say."""
    given = optional_text(data, "reason")
    # Older versions store the words shown, newer ones a key made of them.
    key = given.lower().replace("'", "").replace(" ", "_")
    ours = REASONS.get(key, "other")
    details = data.get("details")
    score = details.get("rating") if isinstance(details, dict) else None
    parts = (
        given if ours == "other" and key != "other" else "",
        optional_text(data, "comment"),
        f"rated {score} of 10" if isinstance(score, int) and not isinstance(score, bool) else "",
    )
    return ((ours,) if given else ()), "; ".join(part for part in parts if part)
