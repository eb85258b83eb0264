"""The command line as scripts use it: exit status, streams, one JSON document."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import main
from app.cli.commands import app
from app.cli.common import show_progress
from deploy.releases.registry import Registry
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of
from feedback_store.storage.database import Database
from tests.conftest import share_kernels
from tests.feedback_store.conftest import sqlite_url
from tests.feedback_store.people import People, Person, files_with
from tests.helpers import make_bundle
from tuning.kernels import choose_kernels

COMMANDS = [
    [],
    ["serve"],
    ["ask"],
    ["tune"],
    ["evaluate"],
    ["demo"],
    ["doctor"],
    ["data"],
    ["data", "draft"],
    ["data", "list"],
    ["data", "approve"],
    ["data", "drop"],
    ["documents"],
    ["documents", "add"],
    ["documents", "list"],
    ["documents", "remove"],
    ["documents", "search"],
    ["feedback"],
    ["feedback", "stats"],
    ["feedback", "pairs"],
    ["feedback", "exclude"],
    ["feedback", "include"],
    ["feedback", "edit"],
    ["feedback", "gold"],
    ["feedback", "alerts"],
    ["feedback", "snapshot"],
    ["feedback", "import"],
    ["feedback", "export"],
    ["feedback", "forget"],
    ["feedback", "retain"],
    ["feedback", "consent"],
    ["feedback", "judge"],
    ["feedback", "examples"],
    ["feedback", "examples", "list"],
    ["feedback", "examples", "approve"],
    ["feedback", "examples", "withdraw"],
    ["canary"],
    ["canary", "start"],
    ["canary", "status"],
    ["canary", "stop"],
    ["canary", "simulate"],
    ["release"],
    ["release", "list"],
    ["release", "show"],
    ["release", "lineage"],
    ["release", "promote"],
    ["release", "rollback"],
    ["release", "export"],
    ["release", "import"],
    ["loop"],
    ["loop", "run"],
    ["loop", "status"],
    ["user"],
    ["user", "list"],
    ["user", "invite"],
    ["user", "role"],
    ["user", "reset"],
    ["user", "disable"],
    ["user", "sessions"],
    ["key"],
    ["key", "create"],
    ["key", "list"],
    ["key", "revoke"],
    ["audit"],
]


class Cli:
    """`burnish` over one home, in this process: starting Python anew takes seconds each time."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Standard output and standard error of a command that must end with a status."""
        self._monkeypatch.setattr(sys, "argv", ["burnish", *arguments, "--home", str(self.home)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = self._capfd.readouterr()
        assert (ended.value.code or 0) == status, f"{arguments}: {output}{errors}"
        return output, errors

    def json(self, *arguments: str) -> Any:
        output, _ = self(*arguments, "--json")
        return json.loads(output.strip().splitlines()[-1])


@pytest.fixture
def cli(
    tmp_path: Path,
    tiny_base: BaseModel,
    kernel_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    share_kernels(tmp_path / "models", kernel_cache)
    monkeypatch.setenv("BURNISH_MODEL", str(tiny_base.folder))
    monkeypatch.setenv("BURNISH_MODEL_CACHE", str(tmp_path / "models"))
    umask = os.umask(0o022)
    yield Cli(tmp_path / "home", monkeypatch, capfd)
    os.umask(umask)  # commands set it for their process, which is this one


def pairs_file(path: Path, count: int) -> Path:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {number}?"}],
            "chosen": [{"role": "assistant", "content": "The sea."}],
            "rejected": [{"role": "assistant", "content": "The cat sat on the warm stone."}],
        }
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_an_adapter_of_other_software_is_imported_listed_and_waits_for_the_gate(
    cli: Cli, tiny_base: BaseModel, tmp_path: Path
) -> None:
    root = tmp_path / "theirs"
    folder = folder_of(root, make_bundle(root, tiny_base))
    output, _ = cli("release", "import", str(folder))
    bundle = output.splitlines()[0]
    assert output.splitlines()[1] == f"not judged; `burnish evaluate {bundle[7:19]}` judges it"
    (listed,) = cli.json("release", "list")["releases"]
    assert listed == {
        "release": bundle,
        "verdict": "not judged",
        "origin": "imported",
        "live": False,
    }
    assert f"  {bundle}  imported  not judged" in cli("release", "list")[0]
    assert cli.json("release", "show", bundle[:15])["origin"] == "imported"
    _, errors = cli("release", "promote", bundle, status=1)
    assert "not judged" in errors
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    _, errors = cli("release", "import", str(folder), status=1)
    assert errors.count("\n") == 1
    assert "base_model_name_or_path is 'a/b'" in errors
    _, errors = cli("tune", "--from", "live", status=1)
    assert "the base model is live" in errors


def test_a_canary_is_started_looked_at_and_stopped(cli: Cli, tiny_base: BaseModel) -> None:
    assert cli("canary", "status")[0] == "no canary was started\n"
    bundle = make_bundle(Home(cli.home).bundles, tiny_base)
    _, errors = cli("canary", "stop", status=1)
    assert "no canary runs" in errors
    _, errors = cli("canary", "start", bundle, status=1)
    assert "no release" in errors  # a folder that never became a release
    database = Database(sqlite_url(cli.home))
    Registry(database).add(bundle, {"verdict": "better"})
    database.close()
    _, errors = cli("canary", "start", bundle, "--share", "0.7", status=1)
    assert "at most 0.5" in errors
    started = cli.json("canary", "start", bundle[:15], "--share", "0.2", "--votes", "600")
    assert started["decision"] == "running" and started["plan"]["candidate"] == bundle
    assert started["plan"]["votes"] == 600 and started["plan"]["incumbent"] is None
    _, errors = cli("canary", "start", bundle, status=1)
    assert "runs already" in errors
    told = cli("canary", "status")[0].splitlines()
    assert told[0] == f"{bundle[7:19]} against base: runs"
    assert told[3] == "  0 of 600 verdicts, 0 of them comparisons"
    assert cli("canary", "stop")[0] == "stopped after 0 verdicts\n"
    assert cli.json("canary", "status")["outcome"] == "undecided"


def test_canaries_are_played_before_one_is_started(cli: Cli) -> None:
    found = cli.json("canary", "simulate", "--candidate", "0.9", "--live", "0.2", "--runs", "20")
    assert found["promoted"] == 1
    assert found["promoted"] + found["rolled_back"] + found["undecided"] == 1


@pytest.mark.integration
def test_every_command_has_help() -> None:
    for command in COMMANDS:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
        assert "Usage" in result.output


@pytest.mark.integration
def test_help_answers_in_under_a_second() -> None:
    code = (
        "import sys; sys.argv = ['burnish', '--help']; from app.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'gradio', 'langchain_core', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    best = min(_seconds(code) for _ in range(3))
    assert best < 1.0


def _seconds(code: str) -> float:
    """Processor time: other tests use the processors as well."""
    begun = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-200:]
    ended = os.times()
    return ended.children_user + ended.children_system - begun.children_user - begun.children_system


def test_wrong_usage_exits_with_2_and_failure_with_1_and_one_sentence(cli: Cli) -> None:
    cli("feedback", "nonsense", status=2)
    for arguments in (
        ("release", "promote", "abcdef"),
        ("release", "rollback"),
        ("feedback", "snapshot"),
        ("tune", "--recipe", "/nowhere.yaml"),
    ):
        output, errors = cli(*arguments, status=1)
        assert output == ""
        assert errors.startswith("burnish: ")
        assert len(errors.strip().splitlines()) == 1


def test_a_model_that_cannot_be_trained_is_refused_before_anything_is_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "abacus"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "abacus"}')
    (folder / "model.safetensors").touch()
    monkeypatch.setenv("BURNISH_MODEL", str(folder))
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 3)))
    _, errors = cli("tune", status=1)
    assert errors.startswith("burnish: cannot train a model of type 'abacus'")
    home = Home(cli.home)
    assert not [path for root in (home.snapshots, home.jobs) for path in root.glob("*")]


def test_ask_answers_the_same_for_the_same_seed(cli: Cli) -> None:
    arguments = ("ask", "Say hello.", "--seed", "3", "--max-new-tokens", "12")
    first = cli.json(*arguments)
    assert first["text"]
    assert first["completion_tokens"] <= 12
    assert cli.json(*arguments) == first


@pytest.mark.integration
def test_ask_takes_several_samples_to_a_vote(cli: Cli) -> None:
    question = ("ask", "Add one and one.", "--max-new-tokens", "8", "--temperature", "1", "--mode")
    asked = cli.json(*question, "self-consistency", "--samples", "3", "--seed", "5")
    alone = [cli.json(*question, "few-shot-cot", "--seed", str(seed))["text"] for seed in (5, 6, 7)]
    assert asked["answers"] == alone
    assert asked["samples"] == 3
    assert 1 <= asked["votes"] <= 3
    assert asked["text"] in [text.strip() for text in alone]
    output, _ = cli(*question, "self-consistency")
    assert "of 5 samples agree" in output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--mode", "self-consistency", "--temperature", "0"), "temperature"),
        (("--mode", "few-shot-cot", "--samples", "2"), "mode"),
        (("--mode", "self-consistency", "--samples", "1"), "samples"),
    ],
)
def test_samples_that_could_not_differ_or_be_compared_are_a_usage_error(
    cli: Cli, options: tuple[str, ...], named: str
) -> None:
    _, errors = cli("ask", "Add one and one.", *options, status=2)
    assert named in errors


def test_samples_need_a_temperature_above_nought_in_the_settings_too(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "settings.toml").write_text("temperature = 0\n")
    _, errors = cli("ask", "Add one and one.", "--mode", "self-consistency", status=2)
    assert "temperature" in errors


def test_doctor_names_the_model_folder(cli: Cli, tiny_base: BaseModel, kernel_cache: Path) -> None:
    findings = cli.json("doctor")
    assert findings["model"]["folder"] == str(tiny_base.folder)
    assert findings["settings"]["model"]["origin"] == "environment"
    assert findings["tuning"]["kernels"] == choose_kernels(kernel_cache).reason
    assert findings["problems"] == []


def test_progress_is_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with show_progress("Loading [the] model") as say:
        say("Answering")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress("Loading [the] model") as say:
        say("")
    output, errors = capfd.readouterr()
    assert output == ""
    assert "Loading [the] model" in errors


@pytest.mark.integration
def test_the_loop_by_hand_from_import_to_rollback(cli: Cli, tmp_path: Path) -> None:
    """Import, tune, evaluate, promote, export, roll back: each command as an operator runs it."""
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 40)))
    stats = cli.json("feedback", "stats")
    assert (stats["turns"], stats["answers"], stats["pairs"]) == (40, 80, 40)
    assert cli.json("loop", "status")["would_run"] is False
    assert cli.json("loop", "run")["ran"] is False

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sft: {epochs: 2}\ndpo: {epochs: 2}\nadapter: {rank: 8}\n")
    tuned = cli.json("tune", "--recipe", str(recipe))
    judged = cli.json("evaluate", tuned["bundle"][7:19])
    assert judged["verdict"] in {"better", "not better", "not enough data"}
    assert [r["release"] for r in cli.json("release", "list")["releases"]] == [tuned["bundle"]]

    promoted = cli.json(
        "release", "promote", tuned["bundle"][:15], "--force", "--reason", "to try it"
    )
    assert promoted == {"live": tuned["bundle"], "servers": 0}
    question = ("ask", "Question 1?", "--temperature", "0", "--max-new-tokens", "12")
    live, base = cli.json(*question), cli.json(*question, "--adapter", "base")
    assert (live["adapter"], base["adapter"]) == (tuned["bundle"], "base")

    merged = tmp_path / "merged"
    cli("release", "export", tuned["bundle"], str(merged))
    assert (merged / "model.safetensors").is_file()
    card = (merged / "README.md").read_text()
    assert f"verdict: **{judged['verdict']}**" in card
    assert "| pairs | " in card
    lora = cli.json(
        "release", "export", tuned["bundle"][7:19], str(tmp_path / "lora"), "--format", "gguf-lora"
    )
    assert (lora["release"], lora["format"]) == (tuned["bundle"], "gguf-lora")
    assert list((tmp_path / "lora").glob("*-lora.gguf"))
    refused = ("release", "export", "base", str(tmp_path / "no"), "--format", "peft")
    assert "a base model is no adapter" in cli(*refused, status=1)[1]
    assert cli.json("release", "rollback")["live"] == "base"
    cli("release", "rollback", status=1)
    story = cli("release", "show", tuned["bundle"][7:15])[0]
    assert "40 pairs of answers that were compared" in story
    assert "promoted by command line" in story
    assert ": to try it\n" in story
    events = [each["event"] for each in cli.json("release", "show", tuned["bundle"])["events"]]
    assert events == ["registered", "judged", "promote", "rollback"]
    (point,) = cli.json("release", "lineage")["releases"]
    assert (point["release"], point["verdict"]) == (tuned["bundle"], judged["verdict"])
    assert point["seconds"] > 0


def test_an_unknown_setting_is_an_error(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "settings.toml").write_text("max_newtokens = 3\n")
    assert "max_newtokens" in cli("loop", "status", status=1)[1]


# Feedback


@pytest.fixture(scope="module")
def spoken_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which Ann and Bob have spoken, to be copied: speaking takes 0.3 s."""
    home = tmp_path_factory.mktemp("spoken")
    database = Database(sqlite_url(home))
    people = People(database)
    for name in ("ann", "bob"):
        people.speaks(name)
    database.close()
    return Home(home).database


@pytest.fixture
def spoken(cli: Cli, spoken_database: Path) -> Iterator[People]:
    """A home in which Ann and Bob have spoken; each has three pairs."""
    cli.home.mkdir()
    shutil.copy(spoken_database, cli.home)
    database = Database(sqlite_url(cli.home))
    yield People(database)
    database.close()


ANN, BOB = Person("ann"), Person("bob")


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


# Privacy


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
