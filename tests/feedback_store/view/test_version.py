"""The version of the rules follows their values and their code, with nothing to raise by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from feedback_store.examples.rules import DEFAULT_RULES
from feedback_store.view.version import rule_sources, rules_version, source_digest

OTHER: dict[str, Any] = {
    "max_answer_chars": 1,
    "max_thumb_pairs": 1,
    "user_share": 0.5,
    "user_floor": 1,
}


def test_each_value_of_the_rules_counts_and_who_refuses_does_not() -> None:
    names = {field.name for field in fields(DEFAULT_RULES)}
    assert names == {*OTHER, "refusing_users"}
    refused = replace(DEFAULT_RULES, refusing_users=frozenset({"ann"}))
    assert rules_version(refused) == rules_version(DEFAULT_RULES)


@pytest.mark.parametrize("name", OTHER)
def test_another_value_is_another_version(name: str) -> None:
    changed = replace(DEFAULT_RULES, **{name: OTHER[name]})
    assert rules_version(changed) != rules_version(DEFAULT_RULES)


def test_the_code_of_every_rule_counts() -> None:
    room = Path(__file__).parents[3] / "feedback_store"
    found = {path.relative_to(room).as_posix() for path in rule_sources()}
    assert {f"examples/{path.name}" for path in (room / "examples").glob("*.py")} <= found
    assert {"records.py", "storage/evidence.py", "view/derivation.py"} <= found


def test_another_line_of_code_is_another_digest(tmp_path: Path) -> None:
    before, after = tmp_path / "a" / "rules.py", tmp_path / "b" / "rules.py"
    for path, text in ((before, "NEAR = 0.95\n"), (after, "NEAR = 0.96\n")):
        path.parent.mkdir()
        path.write_text(text)
    assert source_digest((before,)) != source_digest((after,))
