"""The command line as scripts use it: exit status, streams, one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app, main
from engine.models.catalogue import BaseModel

COMMANDS = [
    [], ["serve"], ["ask"], ["tune"], ["evaluate"], ["demo"], ["doctor"],
    ["feedback"], ["feedback", "stats"], ["feedback", "pairs"], ["feedback", "snapshot"],
    ["feedback", "import"], ["feedback", "export"],
    ["release"], ["release", "list"], ["release", "show"], ["release", "promote"],
    ["release", "rollback"], ["release", "export"], ["loop"], ["loop", "run"], ["loop", "status"],
]  # fmt: skip


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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Cli:
    monkeypatch.setenv("BURNISH_MODEL", str(tiny_base.folder))
    monkeypatch.setenv("BURNISH_MODEL_CACHE", str(tmp_path / "models"))
    return Cli(tmp_path / "home", monkeypatch, capfd)


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


def test_every_command_has_help() -> None:
    for command in COMMANDS:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
        assert "Usage" in result.output


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
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-200:]
    return time.monotonic() - begun


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


def test_ask_answers_the_same_for_the_same_seed(cli: Cli) -> None:
    arguments = ("ask", "Say hello.", "--seed", "3", "--max-new-tokens", "12")
    first = cli.json(*arguments)
    assert first["text"]
    assert first["completion_tokens"] <= 12
    assert cli.json(*arguments) == first


def test_ask_takes_several_samples_to_a_vote(cli: Cli) -> None:
    question = ("ask", "Add one and one.", "--mode", "cot", "--max-new-tokens", "8")
    asked = cli.json(*question, "--samples", "3", "--seed", "5", "--temperature", "1")
    alone = [
        cli.json(*question, "--seed", str(seed), "--temperature", "1")["text"] for seed in (5, 6, 7)
    ]
    assert asked["answers"] == alone
    assert asked["samples"] == 3
    assert 1 <= asked["votes"] <= 3
    assert asked["text"] in [text.strip() for text in alone]
    output, _ = cli(*question, "--samples", "2")
    assert "of 2 samples agree" in output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--mode", "cot", "--samples", "2", "--temperature", "0"), "temperature"),
        (("--samples", "2"), "mode"),
        (("--mode", "cot", "--samples", "0"), "samples"),
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
    _, errors = cli("ask", "Add one and one.", "--mode", "cot", "--samples", "2", status=2)
    assert "temperature" in errors


def test_doctor_names_the_model_folder(cli: Cli, tiny_base: BaseModel) -> None:
    findings = cli.json("doctor")
    assert findings["model"]["folder"] == str(tiny_base.folder)
    assert findings["settings"]["model"]["origin"] == "environment"
    assert findings["problems"] == []


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

    promoted = cli.json("release", "promote", tuned["bundle"][:15], "--force")
    assert promoted == {"live": tuned["bundle"], "servers": 0}
    question = ("ask", "Question 1?", "--temperature", "0", "--max-new-tokens", "12")
    live, base = cli.json(*question), cli.json(*question, "--adapter", "base")
    assert (live["adapter"], base["adapter"]) == (tuned["bundle"], "base")

    merged = tmp_path / "merged"
    cli("release", "export", tuned["bundle"], str(merged))
    assert (merged / "model.safetensors").is_file()
    assert cli.json("release", "rollback")["live"] == "base"
    cli("release", "rollback", status=1)


def test_an_unknown_setting_is_an_error(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "settings.toml").write_text("max_newtokens = 3\n")
    assert "max_newtokens" in cli("loop", "status", status=1)[1]


def test_the_server_listens_beyond_this_machine_only_with_a_password(cli: Cli) -> None:
    _, errors = cli("serve", "--host", "0.0.0.0", status=1)
    assert "OPERATOR_PASSWORD" in errors
