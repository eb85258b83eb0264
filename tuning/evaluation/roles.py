"""The models measured: the candidate, the incumbent it would replace, and their base model.

Knows adapters by their digests (None: the base model itself); knows no measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, get_args

Measure = TypeVar("Measure")
ModelRole = Literal["candidate", "incumbent", "base"]
MODEL_ROLES: tuple[ModelRole, ...] = get_args(ModelRole)
Adapters = Mapping[ModelRole, str | None]


def adapters_of(candidate: str | None, incumbent: str | None) -> Adapters:
    """The adapter in each role."""
    return {"candidate": candidate, "incumbent": incumbent, "base": None}


def for_each_role(
    adapters: Adapters, measure: Callable[[str | None], Measure]
) -> dict[ModelRole, Measure]:
    """Measure every role; an adapter in two roles is measured once."""
    measured: dict[str | None, Measure] = {}
    for adapter in adapters.values():
        if adapter not in measured:
            measured[adapter] = measure(adapter)
    return {role: measured[adapter] for role, adapter in adapters.items()}
