"""Typed reads from a record that somebody else wrote: each gives what it says or `InvalidInput`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.errors import InvalidInput
from engine.messages import clean_text, require_text

RawRow = Mapping[str, object]
_MISSING = object()


USES_TOOLS = "an answer that uses tools"
OFFERS_TOOLS = "a prompt that offers tools"
HOLDS_MEDIA = "pictures, videos or sounds"
ENDS_IN_THOUGHT = "an answer that ends within its thought"


class UnusableRecord(Exception):
    """A record that can be read, and that nothing should be learnt from. Its text is the reason,
    the same for all records of one kind."""


def value(row: RawRow, key: str) -> object:
    """The value of a key, of any type."""
    if (found := row.get(key, _MISSING)) is _MISSING:
        raise InvalidInput(f"missing {key!r}")
    return found


def required_text(row: RawRow, key: str) -> str:
    """Text that is not blank."""
    return require_text(_as_text(value(row, key), key), what=repr(key))


def optional_text(row: RawRow, key: str) -> str:
    """Text, which may be blank; "" where it is missing or null."""
    found = row.get(key)
    return "" if found is None else clean_text(_as_text(found, key), what=repr(key))


def truth(row: RawRow, key: str, default: bool | None = None) -> bool:
    """True or false; where it is missing, the default if there is one."""
    found = value(row, key) if default is None else row.get(key, default)
    if not isinstance(found, bool):
        raise InvalidInput(f"{key!r} must be true or false")
    return found


def verdict(row: RawRow) -> bool:
    """Return whether an answer is good: LLaMA-Factory's `kto_tag`, or TRL's `label`."""
    return truth(row, "kto_tag" if "kto_tag" in row else "label")


def count(row: RawRow, key: str, limit: int) -> int:
    """A whole number from 0 up to a limit; 0 where it is missing."""
    found = row.get(key, 0)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= limit:
        raise InvalidInput(f"{key!r} must be a whole number from 0 to {limit:,}")
    return found


def items(row: RawRow, key: str) -> Sequence[object]:
    """A list."""
    return as_list(value(row, key), key)


def mapping(row: RawRow, key: str) -> RawRow:
    """An object."""
    return as_mapping(value(row, key), key)


def as_list(found: object, what: str) -> Sequence[object]:
    """The value, which must be a list."""
    if not isinstance(found, list):
        raise InvalidInput(f"{what!r} must be a list")
    return found


def as_mapping(found: object, what: str) -> RawRow:
    """The value, which must be an object."""
    if not isinstance(found, dict):
        raise InvalidInput(f"{what!r} must be an object")
    return found


def _as_text(found: object, key: str) -> str:
    if not isinstance(found, str):
        raise InvalidInput(f"{key!r} must be text")
    return found
