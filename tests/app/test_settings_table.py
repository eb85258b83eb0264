"""The table of settings: where each value comes from, and that no secret is in it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import gradio as gr
import pytest

from app.settings import Settings, load_settings
from app.settings_table import HIDDEN_VALUE, SettingRow, settings_table
from app.texts import translated
from app.ui.settings_console import SettingsPage

CHINESE = cast(gr.Request, SimpleNamespace(headers={"accept-language": "zh"}))
SECRET = "correct horse battery staple"


def rows_of(settings: Settings) -> dict[str, SettingRow]:
    return {row.name: row for row in settings_table(settings)}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A setting from each source, and every kind of secret."""
    (tmp_path / "settings.toml").write_text(
        f"""port = 8000
max_rows = 4
database_url = "postgresql://burnish:{SECRET.replace(" ", "-")}@db/burnish"
[mcp_servers.files]
command = "files"
env = {{ TOKEN = "{SECRET}" }}
"""
    )
    monkeypatch.delenv("BURNISH_PORT", raising=False)  # make sets it
    monkeypatch.setenv("BURNISH_MAX_ROWS", "8")
    monkeypatch.setenv("BURNISH_TEMPERATURE", "0.5")
    monkeypatch.setenv("BURNISH_OPERATOR_PASSWORD", SECRET)
    return load_settings(home=tmp_path, temperature=0.25)


def test_each_value_stands_with_where_it_comes_from(settings: Settings) -> None:
    rows = rows_of(settings)
    found = {name: (rows[name].value, rows[name].origin) for name in ("temperature", "max_rows")}
    assert found == {"temperature": ("0.25", "command line"), "max_rows": ("8", "environment")}
    assert (rows["port"].value, rows["port"].origin) == ("8000", "file")
    assert (rows["recipe"].value, rows["recipe"].origin) == ("", "default")
    assert rows["max_rows"].variable == "BURNISH_MAX_ROWS"


def test_no_secret_is_shown(settings: Settings) -> None:
    rows = rows_of(settings)
    assert rows["operator_password"].value == HIDDEN_VALUE
    assert rows["database_url"].value == f"postgresql://burnish:{HIDDEN_VALUE}@db/burnish"
    assert rows["mcp_servers"].value == "files"
    shown = str(rows) + SettingsPage(settings).show("all", CHINESE)
    assert SECRET not in shown
    assert SECRET.replace(" ", "-") not in shown


def test_every_setting_says_in_both_languages_what_it_does(settings: Settings) -> None:
    for row in settings_table(settings):
        assert row.meaning, row.name
        assert translated(row.meaning, "zh") != row.meaning, row.name


def test_what_is_not_the_default_is_shown_alone(settings: Settings) -> None:
    page = SettingsPage(settings).show("changed", CHINESE)
    assert "<dt>port</dt>" in page
    assert "<dt>host</dt>" not in page
    assert "settings.toml" in page
