"""ChatGPT's data export: `conversations.json`, a JSON array of conversations.

A conversation has `title`, `create_time`, `update_time` (seconds), `current_node`, and in `mapping`
its messages by id: `{"message", "parent", "children"}`. A message has `author.role`, `recipient`,
`create_time`, `status`, `metadata` and a `content` of some `content_type`. Between a question and
its answer stand messages that the page does not show: hidden ones, thoughts, recaps of them, calls
of tools (`recipient` is the tool) and their results (`author.role` is "tool").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from feedback_store.formats.chats import ChatTree, Node, chat_turns, moment, words
from feedback_store.formats.fields import RawRow, as_mapping, mapping
from feedback_store.formats.turns import Options
from feedback_store.records import ImportedTurn

# Where the page links a source or a name, such as `cite|turn0search1` in private-use brackets
SOURCE_LINK = re.compile("\ue200([^\ue201]*)\ue201")
INTERRUPTED = ("interrupted", "max_tokens")


def chatgpt_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """One turn for each question that has an answer."""
    del options  # nobody says anything of an answer
    return chat_turns(
        ChatTree(
            id=words(row, "conversation_id") or words(row, "id"),
            title=words(row, "title"),
            time=moment(row.get("update_time")) or moment(row.get("create_time")),
            nodes=_nodes(mapping(row, "mapping")),
            current=words(row, "current_node"),
        )
    )


def _nodes(found: RawRow) -> list[Node]:
    """All messages; of those with the same parent, the order is that of its `children`."""
    rows = {name: as_mapping(each, "mapping") for name, each in found.items()}
    place = {
        child: at
        for row in rows.values()
        if isinstance(children := row.get("children"), list)
        for at, child in enumerate(children)
        if isinstance(child, str)
    }
    names = sorted(rows, key=lambda name: place.get(name, len(rows)))
    return [_node(name, rows[name]) for name in names]


def _node(name: str, row: RawRow) -> Node:
    parent = words(row, "parent")
    message = row.get("message")
    if not isinstance(message, dict) or not _is_shown(message):
        return Node(name, parent)
    content, metadata = _object(message, "content"), _object(message, "metadata")
    if _role(message) == "user":
        time = moment(message.get("create_time"))
        return Node(name, parent, "user", _text(content), time=time)
    finish = _object(metadata, "finish_details").get("type")
    return Node(
        name,
        parent,
        "assistant",
        _text(content),
        _thought(content),
        complete=message.get("status") != "in_progress" and finish not in INTERRUPTED,
        model=words(metadata, "model_slug"),
    )


def _is_shown(message: RawRow) -> bool:
    """Return whether a person saw it: no system message, no tool call, nothing hidden."""
    hidden = _object(message, "metadata").get("is_visually_hidden_from_conversation")
    to_all = message.get("recipient") in ("all", None)
    return _role(message) in ("user", "assistant") and to_all and not hidden


def _role(message: RawRow) -> object:
    return _object(message, "author").get("role")


def _text(content: RawRow) -> str:
    """The words of a message, without pictures; what was spoken is words, too."""
    kind, parts = content.get("content_type"), content.get("parts")
    if kind == "code":
        language = words(content, "language").replace("unknown", "")
        return f"```{language}\n{words(content, 'text')}\n```"
    if kind not in ("text", "multimodal_text") or not isinstance(parts, list):
        return ""
    said = [_part(part) for part in parts]
    return SOURCE_LINK.sub(_link, "\n".join(filter(None, said)))


def _part(part: object) -> str:
    if isinstance(part, dict) and part.get("content_type") == "audio_transcription":
        return words(part, "text")
    return part if isinstance(part, str) else ""


def _link(match: re.Match[str]) -> str:
    """The text of a link: the name of an `entity`, and nothing for a source."""
    kind, _, rest = match[1].partition("\ue202")
    try:
        named = json.loads(rest) if kind == "entity" else None
    except ValueError:
        return ""
    return str(named[1]) if isinstance(named, list) and len(named) > 1 else ""


def _thought(content: RawRow) -> str:
    """The thoughts as they were shown: each with its heading."""
    thoughts = content.get("thoughts")
    if content.get("content_type") != "thoughts" or not isinstance(thoughts, list):
        return ""
    said = [
        [str(each.get(key) or "").strip() for key in ("summary", "content")]
        for each in thoughts
        if isinstance(each, dict)
    ]
    return "\n\n".join("\n".join(filter(None, parts)) for parts in said if any(parts))


def _object(row: RawRow, key: str) -> Mapping[str, object]:
    found = row.get(key)
    return found if isinstance(found, dict) else {}
