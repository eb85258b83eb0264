"""Who is measured: the candidate, the incumbent it would replace, and the base model under both.

Knows adapters by their digests (None: the base model itself); knows no measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, get_args

T = TypeVar("T")
ModelRole = Literal["candidate", "incumbent", "base"]
MODEL_ROLES: tuple[ModelRole, ...] = get_args(ModelRole)
Adapters = Mapping[ModelRole, str | None]


def adapters_of(candidate: str | None, incumbent: str | None) -> Adapters:
    """The adapter in each role."""
    return {"candidate": candidate, "incumbent": incumbent, "base": None}


def for_each_role(adapters: Adapters, measure: Callable[[str | None], T]) -> dict[ModelRole, T]:
    """Measure every role; an adapter in two roles is measured once."""
    measured: dict[str | None, T] = {}
    for adapter in adapters.values():
        if adapter not in measured:
            measured[adapter] = measure(adapter)
    return {role: measured[adapter] for role, adapter in adapters.items()}
