"""The JSON files beside a model's weights, `config.json` first of all. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import ModelUnavailable


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`; raises `ModelUnavailable` unless it is a JSON object."""
    return read_json_object(folder / "config.json")


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object; raises `ModelUnavailable` for a file that holds none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"cannot read {path}: it is not a JSON object")
    return value
