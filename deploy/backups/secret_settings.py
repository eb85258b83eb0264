"""The settings file without its secrets, its comments kept."""

from __future__ import annotations

import tomllib
from collections.abc import Collection

from engine.errors import InvalidInput


def without_secrets(text: str, secret: Collection[str]) -> str:
    """Return a settings file without the lines that set secrets.

    Raises `InvalidInput` where a secret's value covers several lines: it would be left in part.
    """
    settings = tomllib.loads(text)
    lines = [
        line
        for line in text.splitlines(keepends=True)
        if line.split("=", 1)[0].strip("# \t\"'") not in secret  # commented out, it is one, too
    ]
    try:
        left = tomllib.loads("".join(lines))
    except tomllib.TOMLDecodeError:
        left = None
    if left != {name: value for name, value in settings.items() if name not in secret}:
        raise InvalidInput(
            "a secret of settings.toml does not stand on one line by itself: put it on one, or"
            " take the keys into the backup"
        )
    return "".join(lines)
