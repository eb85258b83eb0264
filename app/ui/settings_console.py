"""The console's tab on settings: each with its value, its origin and its meaning; nothing to edit.

Whoever may open the console must not be able to move the server's address or its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import gradio as gr

from app.settings import SettingOrigin, Settings
from app.settings_table import HIDDEN_VALUE, SettingRow, settings_table
from app.texts import language_for, say, translated
from app.ui.fact_table import Fact, fact_table
from app.ui.labels import text

Filter = Literal["all", "changed"]
ORIGINS: Mapping[SettingOrigin, str] = MappingProxyType(
    {
        "command line": "command_line",
        "environment": "environment",
        "file": "file",
        "default": "default",
    }
)  # the keys of their texts


class SettingsPage:
    """The event handlers of the tab, on the settings of one server."""

    def __init__(self, settings: Settings) -> None:
        self._rows = settings_table(settings)

    def show(self, chosen: Filter, request: gr.Request) -> str:
        """Return the table of the chosen settings."""
        language = language_for(request)
        rows = [row for row in self._rows if chosen == "all" or row.origin != "default"]
        if not rows:
            return f"<p>{say('console.settings.none', language)}</p>"
        return fact_table(_facts(rows, language), "settings")


def build_settings_tab(settings: Settings, blocks: gr.Blocks) -> None:
    """Build the tab."""
    page = SettingsPage(settings)
    gr.Markdown(text("console.settings.is"))
    chosen = gr.Radio(
        [
            (text("console.settings.filters.all"), "all"),
            (text("console.settings.filters.changed"), "changed"),
        ],
        value="all",
        label=text("console.settings.filter"),
        elem_id="which-settings",
    )
    table = gr.HTML()
    hidden: Any = {"api_visibility": "private", "show_progress": "hidden"}
    blocks.load(page.show, [chosen], [table], **hidden)
    chosen.change(page.show, [chosen], [table], **hidden)


def _facts(rows: Sequence[SettingRow], language: str) -> list[Fact]:
    return [
        Fact(
            name=row.name,
            value=_value(row, language),
            note=translated(row.meaning, language),
            badge=say(f"console.settings.origins.{ORIGINS[row.origin]}", language),
            marked=row.origin != "default",
            quiet=row.value in ("", HIDDEN_VALUE),
        )
        for row in rows
    ]


def _value(row: SettingRow, language: str) -> str:
    if row.value == HIDDEN_VALUE:
        return say("console.settings.secret", language)
    return row.value or say("console.settings.empty", language)
