"""A short way to ask for a completion over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

Person = Callable[[], httpx.Client]
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}


def complete(client: httpx.Client, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={**HELLO, "max_tokens": 8, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())
