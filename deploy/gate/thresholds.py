"""The thresholds of the gate: a YAML file, read into values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.yaml_files import read_yaml

DEFAULT_FILE = Path(__file__).with_name("thresholds.yaml")


@dataclass(frozen=True, slots=True)
class GuardThresholds:
    """The tolerances of the guards; see thresholds.yaml."""

    min_items: int
    false_alarms: float
    tolerances: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds that a candidate has to reach; see thresholds.yaml."""

    min_gain: float
    min_conversations: int
    guards: GuardThresholds


def read_thresholds(path: Path | None = None) -> Thresholds:
    """Read a file of thresholds; what it leaves out is as in the file that is shipped.

    Raises `InvalidInput` with every unknown name and every value that is no number, or is negative.
    """
    shipped = _load(DEFAULT_FILE)
    given = shipped if path is None else _load(path)
    problems: list[str] = []
    values = _merged(shipped, given, "", problems)
    if problems:
        raise InvalidInput(f"thresholds refused: {'; '.join(problems)}")
    return Thresholds(**{**values, "guards": GuardThresholds(**values["guards"])})


@cache
def default_thresholds() -> Thresholds:
    """The thresholds that are shipped."""
    return read_thresholds()


def _load(path: Path) -> Any:
    return read_yaml(path, f"the thresholds in {path}") or {}


def _merged(known: Any, given: Any, place: str, problems: list[str]) -> Any:
    """The known values with the given ones in their place; each problem is noted."""
    if isinstance(known, dict):
        if not isinstance(given, dict):
            problems.append(f"{place or 'the file'} is not a mapping")
            return known
        problems += [f"{place}{name} is unknown" for name in given.keys() - known.keys()]
        return {
            name: _merged(value, given.get(name, value), f"{place}{name}.", problems)
            for name, value in known.items()
        }
    number = isinstance(given, int if isinstance(known, int) else int | float)
    if not number or isinstance(given, bool) or given < 0:
        kind = "a whole number" if isinstance(known, int) else "a number"
        problems.append(f"{place.rstrip('.')} is not {kind} from 0 on")
        return known
    return given
