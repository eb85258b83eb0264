"""The chat window's copy buttons copy what a message holds: HTML. It also holds the text that the
HTML was made from, and a script in the page copies that instead.

Knows the chat window's habit; knows nothing of what is in a message.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

SCRIPT_PATH = "/copying.js"
SCRIPT_FILE = Path(__file__).with_name("copying.js")
HEAD = f'<script defer src="{SCRIPT_PATH.removeprefix("/")}"></script>'


def with_source(html: str, source: str) -> str:
    """HTML that carries the text it was made from, where nothing is shown."""
    return f'{html}<data value="{escape(source)}"></data>'
