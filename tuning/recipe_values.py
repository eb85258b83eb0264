"""Build frozen dataclasses from plain values, as YAML gives them; every problem is collected.

Knows types; knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "nothing",
}


def build_dataclass(kind: Any, values: Any, prefix: str, problems: list[str]) -> Any:
    """An instance of a dataclass; missing values take their defaults.

    Unknown keys and values of another type are added to `problems`, named from `prefix` on.
    """
    hints = _field_types(kind)
    if not isinstance(values, dict):
        problems.append(f"{prefix.rstrip('.') or 'recipe'}: expected keys and values")
        return kind()
    for unknown in sorted(set(map(str, values)) - set(hints)):
        known = ", ".join(hints)
        problems.append(f"{prefix}{unknown}: unknown key (known: {known})")
    chosen = {}
    for name, hint in hints.items():
        if name not in values:
            continue
        value = values[name]
        if is_dataclass(hint):
            chosen[name] = build_dataclass(hint, value, f"{prefix}{name}.", problems)
            continue
        fitting = next((part for part in type_parts(hint) if _is_a(part, value)), None)
        if fitting is None:
            problems.append(f"{prefix}{name}: {value!r} is not {_expected(hint)}")
        else:
            chosen[name] = float(value) if fitting is float else value
    return kind(**chosen)


def leaves(kind: Any, values: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Each value's name, such as `dpo.beta`, and whether it is given."""
    for name, hint in _field_types(kind).items():
        if is_dataclass(hint):
            yield from leaves(hint, values.get(name, {}), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", name in values


def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}  # without class variables


def type_parts(hint: Any) -> tuple[Any, ...]:
    """The types that a union joins, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_a(part: Any, value: Any) -> bool:
    if get_origin(part) is Literal:
        return isinstance(value, str) and value in get_args(part)
    if part not in (int, float):
        return isinstance(value, part)
    if isinstance(value, bool) or not isinstance(value, int if part is int else int | float):
        return False
    return abs(value) < 1e15  # leaves out infinities, NaN, and what no float holds


def _expected(hint: Any) -> str:
    named = [
        ", ".join(get_args(part)) if get_origin(part) is Literal else TYPE_NAMES[part]
        for part in type_parts(hint)
    ]
    return " or ".join(named)
