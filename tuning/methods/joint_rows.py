"""The rows of the joint objective, one for each example of any kind. Knows no losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from tuning.rows import Ids, TrainingData

RowKind = Literal["pair", "judgement", "demonstration"]
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)


def joint_rows(data: TrainingData) -> list[dict[str, Any]]:
    """Columns kind, prompt_ids, completion_ids, rejected_ids (of a pair) and label.

    Judgements that are all bad say what to avoid and nothing of what to do, so by themselves
    they are no rows.
    """
    good, _ = data.good_and_bad
    demonstrations: Sequence[dict[str, Ids]] = [*data.demonstrations.rows, *data.replay]
    pairs = [
        _row("pair", row["prompt_ids"], row["chosen_ids"], row["rejected_ids"])
        for row in data.preferences
    ]
    shown = [
        _row("demonstration", row["prompt_ids"], row["completion_ids"])
        for row in _each_once(demonstrations)
    ]
    if not (pairs or shown or good):
        return []
    judged = [
        _row("judgement", row["prompt_ids"], row["completion_ids"], label=row["label"])
        for row in data.unpaired.rows
    ]
    return [*pairs, *judged, *shown]


def _row(
    kind: RowKind, prompt: Ids, completion: Ids, rejected: Ids | None = None, label: bool = True
) -> dict[str, Any]:
    return {
        "kind": kind,
        "prompt_ids": prompt,
        "completion_ids": completion,
        "rejected_ids": rejected or [],
        "label": label,
    }


def _each_once(rows: Sequence[dict[str, Ids]]) -> list[dict[str, Ids]]:
    once = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])): row for row in rows}
    return list(once.values())
