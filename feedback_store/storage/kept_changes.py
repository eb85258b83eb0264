"""Choices that follow from a changed answer which its person keeps.

"Shorter", "simpler" and the like write a sibling of an answer. Whoever goes on with the sibling, or
likes it, has chosen it over the answer that it was made from; whoever goes on with the old answer
after all, or takes the thumb back, has chosen neither. Both are stored as choices of a comparison,
with the kind of change as the reason, so that what is learnt from them follows the same rules.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from sqlalchemy import Connection, Row, select

from feedback_store.records import ChoiceValue
from feedback_store.storage import tables as t
from feedback_store.storage.database import insert_once
from feedback_store.storage.events import add_event, event_values

KEPT: ChoiceValue = "right"  # the changed answer stands there
NEITHER: ChoiceValue = "tie"
KEPT_STATUS = "done"  # half an answer was not chosen for what it says


def note_liked(connection: Connection, answer_id: str, user_id: str, *, liked: bool) -> None:
    """Store what a thumb on a changed answer says: the change is better where `liked`, else no more
    than the older answer. Does nothing for an answer that was not changed."""
    changed = _changed(connection, t.answers.c.id == answer_id)
    if liked:
        for each in changed:
            _keep(connection, each, user_id)
    else:
        _take_back(connection, changed, user_id)


def note_continued(connection: Connection, answer_id: str, user_id: str) -> None:
    """Store what a question that follows an answer says: the answer is kept if it is a changed one,
    and changes that were made from it are kept no more."""
    note_liked(connection, answer_id, user_id, liked=True)
    turn = select(t.answers.c.turn_id).where(t.answers.c.id == answer_id).scalar_subquery()
    siblings = _changed(connection, t.answers.c.turn_id == turn)
    from_it = [each for each in siblings if each.sampling["changed_from"] == answer_id]
    _take_back(connection, from_it, user_id)


def _changed(connection: Connection, which: Any) -> list[Row[Any]]:
    """The answers among those asked for that were made from another one."""
    columns = [t.answers.c[name] for name in ("id", "turn_id", "sampling", "status")]
    rows = connection.execute(select(*columns).where(which))
    return [row for row in rows if "changed_from" in row.sampling]


def _keep(connection: Connection, changed: Row[Any], user_id: str) -> None:
    old = changed.sampling["changed_from"]
    known = select(t.answers.c.id).where(
        t.answers.c.id == old, t.answers.c.turn_id == changed.turn_id
    )
    if changed.status != KEPT_STATUS or connection.execute(known).one_or_none() is None:
        return
    comparison_id = _comparison_id(changed, user_id)
    row = {
        "id": comparison_id,
        "turn_id": changed.turn_id,
        "left_answer_id": old,
        "right_answer_id": changed.id,
        "user_id": user_id,
        "created_at": time.time(),
    }
    insert_once(connection, t.comparisons, row)
    if _latest_choice(connection, comparison_id) != KEPT:
        _choose(connection, comparison_id, user_id, KEPT, [str(changed.sampling["change"])])


def _take_back(connection: Connection, changed: list[Row[Any]], user_id: str) -> None:
    for each in changed:
        comparison_id = _comparison_id(each, user_id)
        if _latest_choice(connection, comparison_id) == KEPT:
            _choose(connection, comparison_id, user_id, NEITHER, None)


def _choose(
    connection: Connection,
    comparison_id: str,
    user_id: str,
    choice: ChoiceValue,
    reasons: list[str] | None,
) -> None:
    values = event_values("choice", user_id, None, choice=choice, reasons=reasons)
    add_event(connection, t.comparisons, comparison_id, values)


def _latest_choice(connection: Connection, comparison_id: str) -> str | None:
    query = select(t.events.c.choice).where(t.events.c.comparison_id == comparison_id)
    return connection.execute(query.order_by(t.events.c.id.desc()).limit(1)).scalar()


def _comparison_id(changed: Row[Any], user_id: str) -> str:
    """The comparison's id: the same each time that one person keeps one changed answer."""
    old = changed.sampling["changed_from"]
    return hashlib.sha256(f"{user_id}\0{old}\0{changed.id}".encode()).hexdigest()[:32]
