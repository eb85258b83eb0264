"""The registry of adapter kinds: LoRA, and soft prompts.

A new kind is a module with what `AdapterKind` lists, and an entry in `ADAPTER_KINDS`.
"""

from __future__ import annotations

from pathlib import Path

from engine.adapters import lora, soft_prompt
from engine.adapters.files import peft_type
from engine.adapters.interface import AdapterKind
from engine.errors import InvalidBundle

ADAPTER_KINDS: tuple[AdapterKind, ...] = (lora, soft_prompt)


def kind_of(name: object) -> AdapterKind | None:
    """The kind that covers a value of `peft_type`; None where none does."""
    return next((kind for kind in ADAPTER_KINDS if name in kind.PEFT_TYPES), None)


def kind_in(folder: Path) -> AdapterKind:
    """The kind of the adapter in a PEFT folder; raises `InvalidBundle`."""
    name = peft_type(folder)
    kind = kind_of(name)
    if kind is None:
        raise InvalidBundle([f"peft_type is {name!r}, not 'LORA'"])
    return kind
