"""YAML files: those that a package ships, and those that people edit."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from engine.errors import InvalidInput


def shipped_yaml(package: str, name: str) -> Any:
    """The content of a file that a package ships."""
    return yaml.safe_load(resources.files(package).joinpath(name).read_text("utf-8"))


def read_yaml(path: Path, what: str) -> Any:
    """The content of a file that people edit, None if it is empty.

    Raises `InvalidInput` ("cannot read `what`") where it cannot be read as YAML.
    """
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read {what}: {error}") from error
