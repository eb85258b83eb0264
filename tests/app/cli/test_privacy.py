"""The commands that forget, delete, and decide who is shown what."""

from __future__ import annotations

import time
from pathlib import Path

from deploy.releases.registry import Registry
from engine.models.catalogue import BaseModel
from tests.app.command_line import ANN, BOB, Cli
from tests.feedback_store.people import People, files_with
from tests.helpers import make_bundle


def test_forgetting_prints_the_receipt(cli: Cli, spoken: People, tmp_path: Path) -> None:
    cli("feedback", "snapshot")
    output, _ = cli("feedback", "forget", ANN.id)
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert lines["receipt"] == f"receipt 1: user {ANN.id} is forgotten"
    assert "4 turns" in lines["rows"] and "in 3 conversations" in lines["rows"]
    assert "1 replaced" in lines["snapshots"]
    assert "0 tainted" in lines["adapters"]
    assert "base" in lines["live"]
    assert "Backups" in lines["backups"]
    assert "to" not in lines  # nothing was trained on her
    assert files_with(cli.home, [ANN.canary, ANN.id]) == []
    assert files_with(cli.home, [BOB.canary]) != []
    _, errors = cli("feedback", "forget", ANN.id, status=1)
    assert "nothing is known of a user" in errors


def test_forgetting_retires_what_learnt_and_asks_for_a_retrain(
    cli: Cli, spoken: People, tiny_base: BaseModel
) -> None:
    snapshot = cli.json("feedback", "snapshot")["snapshot"]
    bundle = make_bundle(cli.home / "bundles", tiny_base, manifest={"snapshot": snapshot})
    registry = Registry(spoken.database)
    registry.add(bundle, {"verdict": "better"})
    cli("release", "promote", bundle)
    receipt = cli.json("feedback", "forget", BOB.id)
    assert (receipt["user"], receipt["number"]) == (BOB.id, 1)
    assert (receipt["bundles"], receipt["live"], receipt["retrain"]) == ([bundle], None, True)
    assert cli.json("release", "list")["live"] == "base"
    cli("release", "promote", bundle, "--force", status=1)
    again = cli("feedback", "forget", ANN.id)[0]
    assert "burnish tune" not in again


def test_old_conversations_are_deleted_by_their_age(cli: Cli, spoken: People) -> None:
    assert cli("feedback", "retain", "30")[0] == "nothing is that old\n"
    day = 24 * 3600
    with spoken.database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE turns SET created_at = {time.time() - 31 * day} WHERE user_id = '{ANN.id}'"
        )
    receipt = cli.json("feedback", "retain", "30")
    assert (receipt["rows"]["turns"], receipt["conversations"]) == (4, 3)
    assert receipt["retrain"] is False
    assert cli.json("feedback", "retain", "30") == {"rows": {}}
    cli("feedback", "retain", "0", status=2)


def test_what_is_said_may_be_kept_out_of_training(cli: Cli, spoken: People) -> None:
    assert cli.json("feedback", "consent", ANN.id, "--no") == {"user": ANN.id, "allowed": False}
    assert {p["users"][0] for p in cli.json("feedback", "pairs")["pairs"]} == {BOB.id}
    assert cli("feedback", "consent", ANN.id, "--yes")[0] == "allowed\n"
    assert len(cli.json("feedback", "pairs")["pairs"]) == 6
    cli("feedback", "consent", ANN.id, status=2)  # one or the other must be said


def test_an_answer_is_shared_as_an_example_and_withdrawn(cli: Cli, spoken: People) -> None:
    for answer in spoken.shared.answer_ids():  # the people of the test have theirs
        assert cli("feedback", "examples", "withdraw", answer)[0] == f"withdrawn: {answer}\n"
    assert cli.json("feedback", "examples", "list") == {"examples": []}
    assert cli("feedback", "examples", "list")[0] == "none is approved\n"
    explained = cli.json("feedback", "pairs")["pairs"]
    answer = next(p["chosen"]["answer"] for p in explained if p["source"] == "votes")
    assert f"  answer:    {answer}\n" in cli("feedback", "pairs")[0]
    approved = cli.json("feedback", "examples", "approve", answer)
    assert (approved["approved"], approved["source"]) == (answer, "like")
    (row,) = cli.json("feedback", "examples", "list")["examples"]
    assert (row["answer"], row["shown"], row["why_not"]) == (answer, True, "")
    assert {name: row[name] for name in ("source", "question", "text")} == {
        name: approved[name] for name in ("source", "question", "text")
    }
    said = cli("feedback", "examples", "list")[0]
    assert said == f"{answer} of {row['user']}: like\n  {row['question']}\n  {row['text']}\n"
    cli("feedback", "consent", row["user"], "--no")
    (row,) = cli.json("feedback", "examples", "list")["examples"]
    assert (row["shown"], "does not consent" in row["why_not"]) == (False, True)
    _, refused = cli("feedback", "examples", "approve", answer, status=1)
    assert refused.startswith("burnish: the answer is no example: the person who asked does not")
    assert cli.json("feedback", "examples", "withdraw", answer) == {"withdrawn": answer}
    for command in ("approve", "withdraw"):
        _, refused = cli("feedback", "examples", command, "0" * 32, status=1)
        assert refused.count("\n") == 1
