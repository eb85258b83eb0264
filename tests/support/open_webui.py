"""A double of Open WebUI's HTTP API, with records of the shapes that Open WebUI 0.12 sends."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-" + "0" * 32
PAGE_OF_CHATS = 60


class FakeOpenWebUI:
    """An Open WebUI of one person, u-7, who has rated and edited answers."""

    def __init__(self) -> None:
        self.ratings: dict[str, dict[str, Any]] = {}
        self.chats: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []  # the paths of all requests
        self.shows_chats = True  # its ENABLE_ADMIN_CHAT_ACCESS
        self.is_down = False
        self.url = ""

    def chat(self, chat_id: str, messages: dict[str, Any], *, at: int) -> None:
        """A chat whose messages are as its database has them."""
        history = {"messages": messages, "currentId": list(messages)[-1]}
        self.chats[chat_id] = {
            "id": chat_id,
            "user_id": "u-7",
            "title": "A chat",
            "chat": {"title": "A chat", "models": ["live"], "params": {}, "history": history},
            "updated_at": at,
            "created_at": 1,
            "archived": False,
            "pinned": False,
            "meta": {},
            "share_id": None,
            "folder_id": None,
        }

    def rate(
        self, name: str, chat_id: str, message_id: str, rating: Any, *, at: int, **data: Any
    ) -> None:
        """A rating of a message, or the same one changed; it has the chat as it is now."""
        chat = json.loads(json.dumps(self.chats[chat_id]))
        self.ratings[name] = {
            "id": name,
            "user_id": "u-7",
            "version": 0,
            "type": "rating",
            "data": {"rating": rating, "model_id": "live", "sibling_model_ids": None, **data},
            "meta": {
                "arena": False,
                "chat_id": chat_id,
                "message_id": message_id,
                "message_index": 1,
            },
            "snapshot": {"chat": chat},
            "created_at": 1,
            "updated_at": at,
        }

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """The status and the document of a path."""
        named = re.fullmatch(r"(/api/v1/[a-z/]+/)([\w-]+)", path)
        if self.is_down:
            return 502, {"detail": "Bad Gateway"}
        if path == "/api/v1/evaluations/feedbacks/all/ids":
            kept = ("id", "user_id", "created_at", "updated_at")
            return 200, [{name: row[name] for name in kept} for row in self.ratings.values()]
        if path == "/api/v1/users/all":
            return 200, {"users": [{"id": "u-7", "name": "Ann", "role": "user"}], "total": 1}
        if named and named[1] == "/api/v1/evaluations/feedback/":
            return 200, self.ratings[named[2]]
        if not self.shows_chats:
            return 401, {"detail": "You do not have permission to access this resource."}
        if named and named[1] == "/api/v1/chats/list/user/":
            begin = PAGE_OF_CHATS * (int(query["page"][0]) - 1)
            newest = sorted(self.chats.values(), key=lambda row: -row["updated_at"])
            listed = [
                {name: row[name] for name in ("id", "title", "updated_at", "created_at")}
                for row in newest
            ]
            return 200, listed[begin:][:PAGE_OF_CHATS]
        if named and named[1] == "/api/v1/chats/":
            return 200, self.chats[named[2]]
        return 404, {"detail": "Not Found"}


def message(
    role: str, content: str, parent: str | None = None, *, at: int = 0, **more: Any
) -> dict[str, Any]:
    """A message as Open WebUI's history has it."""
    model = {"model": "live", "modelName": "live", "modelIdx": 0, "done": True}
    return {
        "parentId": parent,
        "childrenIds": [],
        "role": role,
        "content": content,
        "timestamp": at,
        **(model if role == "assistant" else {"models": ["live"]}),
        **more,
    }


@contextmanager
def fake_open_webui() -> Iterator[FakeOpenWebUI]:
    """A running double that takes requests with `KEY` alone."""
    fake = FakeOpenWebUI()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            fake.asked.append(split.path)
            status, document = 401, {"detail": "401 Unauthorized"}
            if self.headers.get("Authorization") == f"Bearer {KEY}":
                status, document = fake.answer(split.path, parse_qs(split.query))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()
