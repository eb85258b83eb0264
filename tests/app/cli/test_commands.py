"""The command line as scripts use it: exit status, streams, one JSON document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.cli.common import show_progress
from deploy.releases.registry import Registry
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of
from feedback_store.storage.database import Database
from tests.app.command_line import Cli, pairs_file
from tests.feedback_store.conftest import sqlite_url
from tests.helpers import make_bundle
from tuning.kernels import choose_kernels

COMMANDS = [
    [],
    ["serve"],
    ["ask"],
    ["tune"],
    ["tune-worker"],
    ["evaluate"],
    ["demo"],
    ["doctor"],
    ["model"],
    ["model", "list"],
    ["model", "fetch"],
    ["backup"],
    ["restore"],
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
    ["canary", "rollback"],
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


def test_the_release_on_trial_is_taken_back(cli: Cli, tiny_base: BaseModel) -> None:
    _, errors = cli("canary", "rollback", status=1)
    assert "no canary runs" in errors
    bundle = make_bundle(Home(cli.home).bundles, tiny_base)
    database = Database(sqlite_url(cli.home))
    Registry(database).add(bundle, {"verdict": "better"})
    database.close()
    cli("canary", "start", bundle)
    assert cli("canary", "rollback", "--reason", "it swears")[0] == f"taken back: {bundle}\n"
    assert cli.json("canary", "status")["outcome"] == "rolled back"
    assert cli.json("release", "list")["live"] == "base"


def test_the_plan_of_a_round_is_printed_and_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 8)))
    plan = cli.json("loop", "run", "--plan")
    assert (plan["pairs"] + plan["heldout_pairs"], plan["better_release"]) == (8, "live")
    assert "goes live by itself" in cli("loop", "run", "--plan")[0].splitlines()[-1]
    assert cli.json("loop", "status")["rounds"] == []


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
        ("tune-worker",),
        ("tune-worker", "--objects", "nothing://x"),
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
    with show_progress("Loading [the] model", as_json=True) as say:
        say("Answering")
    assert capfd.readouterr() == ("", "")
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
