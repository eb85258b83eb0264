"""`burnish documents`: collections that everybody may ask, by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from engine.errors import InvalidInput
from tests.support.documents import read_in_this_process


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Read files in this process."""
    with read_in_this_process():
        yield


def run(home: Path, *arguments: str) -> Any:
    """The command's document; its exception is raised."""
    done = CliRunner().invoke(app, ["documents", *arguments, "--home", str(home), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_documents_are_added_listed_searched_and_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    file = tmp_path / "leave.md"
    file.write_text("# Leave\n\nEmployees have thirty days of vacation a year.\n")
    (added,) = run(home, "add", str(file), "--collection", "Handbook")["added"]
    assert (added["name"], added["collection"], added["passages"]) == ("leave.md", "Handbook", 1)
    assert run(home, "list")["documents"] == [added]
    assert run(home, "list", "--user", "ann")["documents"] == []
    asked = ("search", "How many vacation days?", "--collection", "Handbook")
    (found,) = run(home, *asked)["passages"]
    assert (found["source"], found["heading"]) == ("leave.md", "Leave")
    assert found["text"] == "Employees have thirty days of vacation a year."
    assert run(home, "remove", added["id"][7:15])["removed"] == added["id"]
    assert run(home, *asked)["passages"] == []


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_added(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    good, bad = tmp_path / "a.txt", tmp_path / "b.pdf"
    good.write_text("The gate closes at noon.")
    bad.write_text("no pdf")
    files = [str(bad), str(tmp_path / "none.txt"), str(good)]
    with pytest.raises(InvalidInput, match=r"b\.pdf cannot be read.*none\.txt: No such file"):
        run(home, "add", *files, "--collection", "Rules")
    assert [each["name"] for each in run(home, "list")["documents"]] == ["a.txt"]
