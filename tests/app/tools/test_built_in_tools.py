"""The built-in tools: what they compute, tell and find, and what they refuse."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.setting_types import ToolNames
from app.settings import Settings, load_settings
from app.tools.calculator import calculator
from app.tools.clock import clock, zone_named, zone_of
from app.tools.document_search import NOTHING_FITS, search_own_documents
from app.tools.toolbox import BUILT_IN, built_in_tools
from engine.errors import InvalidInput
from feedback_store.documents.library import Collection, Library
from tests.support.documents import read_in_this_process


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 1", "2"),
        ("0.1 + 0.2", "0.3"),  # decimal, as people count
        ("(3 + 4) * 12 / 7", "12"),
        ("2^10", "1024"),
        ("10 ÷ 4 × 2 − 1", "4"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("1/3", "0.333333333333333"),
        ("sqrt(2)**2", "2"),
        ("round(2.345, 2)", "2.35"),
        ("round(123456, -3)", "123000"),
        ("sin(pi)", "0"),
        ("ln(e)", "1"),
        ("max(1, 2, 3) + abs(-4)", "7"),
        ("0x1f + 1_000", "1031"),
        ("10**30", "1" + "0" * 30),
        ("10**400", "1E+400"),
        ("1e-20", "1E-20"),
    ],
)
def test_the_calculator_computes(expression: str, result: str) -> None:
    assert calculator(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a",
        "1 +",
        "__import__('os').getcwd()",
        "(1).__class__",
        "'a' * 3",
        "[1][0]",
        "True + 1",
        "3j",
        "1 if 2 else 3",
        "round(1, digits=2)",
        "lambda: 1",
        "1 / 0",
        "0 / 0",
        "sqrt(-1)",
        "min()",
        "round(1, 0.5)",
        "10**20000",
        "9**9**9**9",
        "exp(exp(exp(9)))",
        "-" * 60 + "1",
        "1+" * 300 + "1",
        "9" * 500 + "**" + "9",
    ],
)
def test_the_calculator_refuses_at_once_what_is_no_arithmetic_or_too_large(expression: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(InvalidInput):
        calculator(expression)
    assert time.perf_counter() - begun < 5


def test_the_clock_tells_the_time_of_a_zone() -> None:
    told = clock(zone_named("Asia/Shanghai"))
    assert re.fullmatch(r"\w+day, \d+ \w+ \d{4}, \d\d:\d\d:\d\d \(Asia/Shanghai, UTC\+0800\)", told)
    assert clock(zone_of("Asia/Shanghai"))[:12] == told[:12]
    assert zone_of("") is None
    for name in ("Nowhere", "../etc/passwd", "/etc/localtime", "x" * 1_000, "a\x00b"):
        assert zone_of(name) is None
        with pytest.raises(InvalidInput, match="no time zone"):
            zone_named(name)


def test_the_document_search_finds_the_persons_own_and_the_shared_ones(tmp_path: Path) -> None:
    library = Library(tmp_path / "documents")
    file = tmp_path / "note.txt"
    said = {"ann": "Ann keeps bees.", "bob": "Bob keeps goats.", None: "All keep bees."}
    with read_in_this_process():
        for person, text in said.items():
            file.write_text(text)
            library.add(Collection("Notes", person), file, f"{person or 'shared'}.txt")
    found = search_own_documents(library, "ann", "Who keeps bees?")
    assert "Ann keeps bees." in found
    assert "All keep bees." in found
    assert search_own_documents(library, "ann", "Where are goats?") == NOTHING_FITS


def test_every_built_in_tool_can_be_switched_on_and_says_what_it_does() -> None:
    (item, _), *_ = get_args(get_args(ToolNames)[0]), None
    assert set(get_args(item)) == set(BUILT_IN)
    for tool in built_in_tools():
        assert len(tool.function.description) > 20


def test_the_settings_name_what_they_refuse(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    wrongs: tuple[dict[str, Any], ...] = (
        {"tools": "hammer"},
        {"mcp_servers": {"a": {}}},
        {"mcp_servers": {"a b": {}}},
    )
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            load_settings(home=home, **wrong)
    both = {"a": {"command": "x", "url": "http://x"}}
    with pytest.raises(InvalidInput, match="and not both"):
        load_settings(home=home, mcp_servers=both)
    (home / "settings.toml").write_text(
        'tools = ["clock"]\n[mcp_servers.notes]\ncommand = "notes"\nenv = {KEY = "hush-hush"}\n'
    )
    found = load_settings(home=home)
    assert found.tools == ("clock",)
    assert found.mcp_servers["notes"].command == "notes"
    assert "hush-hush" not in repr(found)


def test_the_command_line_lists_the_tools_and_tries_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_TOOLS", "calculator,clock")
    home = ["--home", str(settings.home)]
    runner = CliRunner()
    listed = runner.invoke(app, ["tools", *home])
    assert listed.exit_code == 0
    assert re.findall(r"^(on|off) +(\w+): \w", listed.stdout, re.MULTILINE) == [
        ("on", "calculator"),
        ("on", "clock"),
        ("off", "documents"),
    ]
    tried = runner.invoke(app, ["tools", "call", "calculator", '{"expression": "6*7"}', *home])
    assert (tried.exit_code, tried.stdout) == (0, "42\n")
    for wrong in (["documents"], ["calculator", "[]"], ["calculator", '{"expression": "x"}']):
        assert isinstance(
            runner.invoke(app, ["tools", "call", *wrong, *home]).exception, InvalidInput
        )
