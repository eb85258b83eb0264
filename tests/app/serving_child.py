"""`burnish` in a process of its own, with a scripted engine in place of a model.

Arguments: seconds a token, then the command line.
"""

from __future__ import annotations

import sys
from typing import Any

import engine.start
from app.cli import main
from tests.support.scripted_engine import ScriptedEngine

token_seconds = float(sys.argv.pop(1))


def scripted_engine(_base: Any, **_options: Any) -> ScriptedEngine:
    return ScriptedEngine(token_seconds=token_seconds)


engine.start.start_engine = scripted_engine  # type: ignore[assignment]
main()
