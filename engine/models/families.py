"""The registry of families: which model types this project decodes itself.

A new family is a module beside this one with `MODEL_TYPES` and `architecture`, and a line in
`FAMILIES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.config_file import read_config
from engine.errors import ModelUnavailable
from engine.models import chatglm, glm, llama
from engine.models.architecture import Architecture


class Family(Protocol):
    """The functions and constants that a family's module provides."""

    MODEL_TYPES: frozenset[str]

    def architecture(self, folder: Path) -> Architecture:
        """Read the configuration; raises `ModelUnavailable` for what it does not cover."""


FAMILIES: tuple[Family, ...] = (llama, glm, chatglm)


def family_of(model_type: object) -> Family | None:
    """The family that decodes this `model_type` of a config.json; None where none does."""
    return next((family for family in FAMILIES if model_type in family.MODEL_TYPES), None)


def architecture_of(folder: Path) -> Architecture:
    """The architecture of the checkpoint in `folder`; raises `ModelUnavailable`."""
    model_type = read_config(folder).get("model_type")
    family = family_of(model_type)
    if family is None:
        raise ModelUnavailable(f"the fast engine has no decoder for model type {model_type!r}")
    return family.architecture(folder)


def is_covered(folder: Path) -> bool:
    """Return whether our decoder knows the checkpoint's family and all of its settings."""
    try:
        architecture_of(folder)
    except ModelUnavailable:
        return False
    return True
