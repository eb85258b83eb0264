"""`burnish` in a process of its own, with the fake engine in place of a model.

Arguments: seconds a token, then the command line.
"""

from __future__ import annotations

import sys
from typing import Any

import engine.start
from app.cli import main
from tests.fake_engine import FakeEngine

token_seconds = float(sys.argv.pop(1))


def fake_engine(_base: Any, **_options: Any) -> FakeEngine:
    return FakeEngine(token_seconds=token_seconds)


engine.start.start_engine = fake_engine  # type: ignore[assignment]
main()
