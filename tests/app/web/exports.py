"""Small export files of other chat applications."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

SEA = 1_600_000_000.0  # 13 September 2020, when the sea was asked about


def said(role: str, text: str, **more: Any) -> dict[str, Any]:
    """A message as ChatGPT writes it."""
    content = {"content_type": "text", "parts": [text]}
    return {"author": {"role": role}, "recipient": "all", "content": content, **more}


def conversation(name: str = "c-1", title: str = "The sea") -> dict[str, Any]:
    """A conversation of ChatGPT's with two answers to its question, left at the first."""
    nodes = {
        "root": (None, None, ["q"]),
        "q": (said("user", "What is the sea?", create_time=SEA), "root", ["a", "b"]),
        "a": (said("assistant", "Salt water."), "q", []),
        "b": (said("assistant", "Much water."), "q", []),
    }
    mapping = {
        node: {"id": node, "message": message, "parent": parent, "children": children}
        for node, (message, parent, children) in nodes.items()
    }
    return {
        "title": title,
        "create_time": SEA - 10,
        "update_time": SEA + 10,
        "mapping": mapping,
        "current_node": "a",
        "conversation_id": name,
        "id": name,
    }


def as_json(*conversations: Any) -> bytes:
    """A `conversations.json`."""
    return json.dumps(conversations).encode()


def as_zip(members: dict[str, bytes]) -> bytes:
    """A zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()
