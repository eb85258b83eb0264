"""A server without the pages, in a process of its own and over a scripted engine.

Its settings are in the environment, the seconds a token are its argument. It prints its address.
"""

from __future__ import annotations

import sys
from typing import Any

import engine.start
from app.service import Service
from app.settings import load_settings
from app.workspace import Workspace
from tests.app.conftest import api_alone, listening
from tests.support.scripted_engine import ScriptedEngine

token_seconds = float(sys.argv[1])


def scripted_engine(_base: Any, **_options: Any) -> ScriptedEngine:
    return ScriptedEngine(token_seconds=token_seconds)


engine.start.start_engine = scripted_engine  # type: ignore[assignment]
service = Service(Workspace(load_settings()))
service.start()
with listening(service, api_alone(service)) as url:
    print(url, flush=True)  # noqa: T201
    sys.stdin.read()  # until it is killed, or its parent ends
