"""The commands of the images, run in environments that lack what the images leave out.

An image that serves has no training libraries, one that tunes has no pages and no server.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.models.catalogue import BaseModel
from tests.app.command_line import pairs_file
from tests.support.environments import ROOT, python_without, variables_of

pytestmark = pytest.mark.integration

OPERATIONS = ROOT / "docs" / "operations"
RUN = ("-c", "from app.cli import main; main()")


def left_out(name: str) -> list[str]:
    return re.findall(r"^(\S+) ;", (OPERATIONS / name).read_text("utf-8"), re.M)


class Installed:
    """`burnish` in an environment without some packages."""

    def __init__(self, folder: Path, base: BaseModel, without: list[str]) -> None:
        self.python = python_without(folder / "environment", *without)
        self.variables = variables_of(
            self.python,
            BURNISH_HOME=str(folder / "home"),
            BURNISH_MODEL=str(base.folder),
            BURNISH_MODEL_CACHE=str(folder / "models"),
        )

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Standard output and error of a command that must end with a status."""
        command = [str(self.python), *RUN, *arguments]
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout, done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json")[0].strip().splitlines()[-1])

    def lacks(self, module: str) -> bool:
        code = f"import importlib.util as u; print(u.find_spec({module!r}) is None)"
        command = [str(self.python), "-c", code]
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True)
        return done.stdout.strip() == "True"


@pytest.fixture
def serving(tmp_path: Path, tiny_base: BaseModel) -> Iterator[tuple[Installed, str]]:
    """An installation that serves, and the address of its server."""
    installed = Installed(tmp_path, tiny_base, left_out("without-tuning.txt"))
    command = [str(installed.python), *RUN, "serve", "--port", "0", "--json"]
    server = subprocess.Popen(
        command,
        env=installed.variables,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "errors").open("w"),
        text=True,
    )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert ready, (tmp_path / "errors").read_text()
        yield installed, json.loads(ready)["url"]
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0


def test_an_installation_without_training_libraries_serves(
    serving: tuple[Installed, str], tmp_path: Path
) -> None:
    installed, url = serving
    assert installed.lacks("trl") and installed.lacks("datasets")
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/readyz").json() == {"status": "ready", "live": None}
        assert "Burnish" in client.get("/", headers={"accept": "text/html"}).text
        asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=asked).json()
        assert answer["usage"]["completion_tokens"] > 0
        voted = client.post(f"/api/answers/{answer['id']}/vote", json={"vote": 1})
        assert voted.status_code == 200
    installed("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 8)))
    _, errors = installed("tune", status=1)  # and says so before anything is written
    assert errors.strip() == (
        "burnish: this installation serves only: trl is not in it; tune where it is, on the same"
        " home"
    )


@pytest.mark.slow
def test_an_installation_without_pages_runs_the_loop(tmp_path: Path, tiny_base: BaseModel) -> None:
    installed = Installed(tmp_path, tiny_base, left_out("without-pages.txt"))
    assert installed.lacks("gradio") and installed.lacks("fastapi") and installed.lacks("uvicorn")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sft: {epochs: 1}\ndpo: {epochs: 1}\nadapter: {rank: 4}\n")
    installed.variables |= {
        "BURNISH_RECIPE": str(recipe),
        "BURNISH_LOOP_MIN_NEW_PAIRS": "1",
        "BURNISH_TUNE_NICE": "0",  # idle time alone may be none where other tests run
    }
    installed("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 40)))
    assert installed.json("loop", "status")["would_run"] is True
    round_ = installed.json("loop", "run")
    assert round_["ran"] is True
    assert round_["bundle"].startswith("sha256:")
    assert round_["outcome"] in {"promoted", "not promoted"}
