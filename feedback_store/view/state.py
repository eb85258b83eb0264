"""The state of the view: the evidence and the rules from which its rows were derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, delete, select, update

from feedback_store.storage import tables as t
from feedback_store.storage.database import insert_once

StatusCounts = Mapping[str, Mapping[str, int]]  # the number of rows, by status and reason


@dataclass(frozen=True, slots=True)
class ViewState:
    """The one row of its table; whoever changes the view replaces the state it has read."""

    rules: str = ""  # see `version.rules_version`
    version: int = 0  # grows with each change to the view
    last_event: int = 0
    last_decision: int = 0
    refusing: tuple[str, ...] = ()  # users whose words may not be trained on
    unweighed: int = 0  # answers whose shared votes changed since trust was estimated
    capped: int = 0  # the version for which users' shares were applied
    flip_rate: float | None = None
    counts: StatusCounts = field(default_factory=dict)


def read_state(connection: Connection) -> ViewState:
    """The state; an empty one where nothing was derived yet."""
    state = connection.execute(select(t.training_set.c.state)).scalar_one_or_none()
    return ViewState(**{**state, "refusing": tuple(state["refusing"])}) if state else ViewState()


def write_state(connection: Connection, state: ViewState) -> None:
    """Replace the state."""
    insert_once(connection, t.training_set, {"id": 1, "state": {}})
    connection.execute(update(t.training_set).values(state=asdict(state)))


def clear_view(connection: Connection) -> None:
    """Delete every row that was derived."""
    for table in (t.candidates, t.stale, t.verdicts):
        connection.execute(delete(table))
