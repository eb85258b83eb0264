"""`burnish tune` beside its trainings: the plan before one, changes of a recipe, a job's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.learning.tune import WaitingNote
from engine.home import Home
from tests.app.command_line import Cli, pairs_file
from tuning.jobs.runner import Job

pytestmark = pytest.mark.integration


def test_a_plan_says_what_a_training_takes_and_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 4)))
    plan = cli.json("tune", "--plan", "--set", "joint.least_steps=0", "--set", "joint.epochs=2")
    (stage,) = plan["run"]["stages"]
    assert stage["steps"] == -(-2 * stage["rows"] // 4)  # two epochs in batches of four
    assert plan["warnings"][0] == "4 pairs are few: 20 make a first training worth trying"
    assert plan["speed"]["job"] is None
    text, _ = cli("tune", "--plan")
    assert "by a short measurement of this processor" in text
    assert "note: 4 pairs are few" in text
    assert cli.json("tune", "--list") == {"jobs": []}


def test_a_change_that_the_recipe_refuses_starts_nothing(cli: Cli) -> None:
    _, errors = cli("tune", "--set", "joint.beta=-1", status=1)
    assert errors == "burnish: recipe refused: joint.beta must be positive\n"
    _, errors = cli("tune", "--set", "joint.speed=9", status=1)
    assert errors.startswith("burnish: a recipe has no value 'joint.speed' (known: adapter.rank, ")
    _, errors = cli("tune", "--plan", "--list", status=2)
    assert "only one at a time" in " ".join(errors.replace("│", " ").split())  # in a box


def test_a_job_that_waits_for_a_processor_says_so_once_each_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    note, waits = WaitingNote(lambda _job: 1), iter([False, True, True, False, True])
    monkeypatch.setattr(note._watch, "is_waiting", lambda _pid: next(waits))
    for _ in range(5):
        note(Job("sha256:" + "7" * 64, "running", "", None, None, 0.0))
    assert capfd.readouterr().err == 2 * "waiting for a free processor\n"


def test_the_log_of_a_job_is_printed_as_a_terminal_would_show_it(cli: Cli) -> None:
    job = "sha256:" + "7" * 64
    assert cli.json("tune", "--list") == {"jobs": []}  # which makes the home
    folder = Home(cli.home).jobs / job[7:]
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "log.txt").write_text("loading\n0%\r50%\r100%\nit broke\n")
    output, _ = cli("tune", "--log", "7777")
    assert output == "loading\n100%\nit broke\n"
    assert cli.json("tune", "--log", "7777") == {"job": job, "log": "loading\n100%\nit broke"}
