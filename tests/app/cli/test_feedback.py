"""The commands on feedback: statistics, pairs, snapshots, exports and imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.command_line import ANN, BOB, Cli, pairs_file
from tests.feedback_store.people import People


def test_statistics_count_what_was_said_and_what_it_teaches(cli: Cli, spoken: People) -> None:
    stats = cli.json("feedback", "stats")
    assert (stats["turns"], stats["answers"], stats["votes"], stats["corrections"]) == (8, 14, 4, 2)
    assert (stats["pairs"], stats["demonstrations"]) == (6, 2)
    assert stats["set_aside"] == {"excluded by the operator": 2}
    output, _ = cli("feedback", "stats")
    assert "corrections     2" in output


def test_pairs_are_listed_with_their_reasons_and_on_demand_what_is_set_aside(
    cli: Cli, spoken: People
) -> None:
    listed = cli.json("feedback", "pairs")
    assert set(listed) == {"pairs"}
    assert sorted(pair["source"] for pair in listed["pairs"]) == sorted(
        ["comparison", "correction", "votes"] * 2
    )
    assert all(pair["users"] in ([ANN.id], [BOB.id]) and pair["events"] for pair in listed["pairs"])
    explained = cli.json("feedback", "pairs", "--explain")
    (first, second) = explained["set_aside"]
    assert first["reason"] == second["reason"] == "excluded by the operator"
    assert first["texts"][0].endswith(" A")
    assert {example["users"][0] for example in explained["demonstrations"]} == {ANN.id, BOB.id}
    output, _ = cli("feedback", "pairs", "--explain")
    assert "set aside: excluded by the operator" in output
    assert f"of {ANN.id}" in output


def test_an_example_is_excluded_edited_and_taken_back_by_the_beginning_of_its_id(
    cli: Cli, spoken: People
) -> None:
    pairs = cli.json("feedback", "pairs")["pairs"]
    chosen = next(pair["id"] for pair in pairs if pair["source"] == "votes")
    assert cli.json("feedback", "exclude", chosen[:20], "--note", "rude") == {"excluded": chosen}
    assert len(cli.json("feedback", "pairs")["pairs"]) == 5
    cli("feedback", "exclude", chosen[:20], status=1)  # it is no example any more
    assert cli.json("feedback", "include", chosen[:20]) == {"included": chosen}
    assert cli.json("feedback", "pairs")["pairs"] == pairs
    cli("feedback", "edit", chosen, "--chosen", "New words.", "--rejected", "Bad words.")
    (edited,) = [p for p in cli.json("feedback", "pairs")["pairs"] if p["id"] == chosen]
    assert (edited["chosen"]["text"], edited["rejected"]["text"]) == ("New words.", "Bad words.")


@pytest.mark.parametrize("command", ["exclude", "include", "edit"])
def test_a_decision_about_no_one_example_is_refused(cli: Cli, spoken: People, command: str) -> None:
    for beginning in ("sha256:", "nonsense"):
        _, errors = cli("feedback", command, beginning, "--note", "x", status=1)
        assert errors.startswith("burnish: no one ")


def test_a_held_out_conversation_becomes_gold_and_back(cli: Cli, spoken: People) -> None:
    gold = cli.json("feedback", "gold", spoken.speaks("eve").conversations[2])["gold"]
    assert len(gold) == 3
    assert len(cli.json("feedback", "gold", gold[0], "--undo")["gold"]) == 2
    _, errors = cli("feedback", "gold", spoken.speaks("dan").conversations[0], status=1)
    assert "training side" in errors


def test_nothing_suspicious_is_said_to_be_nothing(cli: Cli, spoken: People) -> None:
    assert cli.json("feedback", "alerts") == {"alerts": []}
    assert cli("feedback", "alerts")[0] == "nothing suspicious\n"


def test_a_snapshot_is_frozen_verified_and_compared(cli: Cli, spoken: People) -> None:
    first = cli.json("feedback", "snapshot")
    assert first["counts"]["train"]["pairs"] == 4
    spoken.speaks("eve")
    second = cli.json("feedback", "snapshot")
    beginning = first["snapshot"][7:20]
    assert cli.json("feedback", "snapshot", "--verify", beginning)["problems"] == []
    changed = cli.json("feedback", "snapshot", "--diff", beginning, second["snapshot"])
    assert len(changed["added"]["train/pairs"]) == 2
    assert changed["removed"]["train/pairs"] == []
    folder = cli.home / "snapshots" / first["snapshot"][7:]
    (folder / "train" / "pairs.jsonl").write_text("")
    output, _ = cli("feedback", "snapshot", "--verify", beginning, status=1)
    assert "train/pairs.jsonl differs" in output


@pytest.mark.parametrize(
    ("kind", "options", "examples"),
    [
        ("trl", (), 6),
        ("csv", (), 6),
        ("llama-factory", (), 8),
        ("sharegpt", ("--kind", "demonstrations"), 2),
    ],
)
def test_examples_are_exported_once_and_never_over_a_file(
    cli: Cli, spoken: People, tmp_path: Path, kind: str, options: tuple[str, ...], examples: int
) -> None:
    export = ("feedback", "export", str(tmp_path / "out"), "--format", kind, *options)
    assert cli.json(*export)["examples"] == examples
    assert (tmp_path / "out").exists()
    cli(*export, status=1)


def test_an_unknown_format_is_refused_naming_the_known_ones(
    cli: Cli, spoken: People, tmp_path: Path
) -> None:
    _, errors = cli("feedback", "export", str(tmp_path / "out"), "--format", "x", status=1)
    assert all(known in errors for known in ("trl", "llama-factory", "sharegpt", "csv"))


def test_a_file_is_imported_whole_or_not_at_all(cli: Cli, tmp_path: Path) -> None:
    good = pairs_file(tmp_path / "good.jsonl", 3)
    assert cli.json("feedback", "import", str(good), "--user", "eve")["turns"] == 3
    bad = tmp_path / "bad.jsonl"
    bad.write_text(good.read_text() + "\n{}\n")
    _, errors = cli("feedback", "import", str(bad), status=1)
    assert "line 4" in errors
    stats = cli.json("feedback", "stats")
    assert (stats["turns"], stats["comparisons"]) == (3, 3)
    assert {p["users"][0] for p in cli.json("feedback", "pairs")["pairs"]} == {"eve"}
