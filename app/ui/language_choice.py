"""The list from which a person chooses the language of a page.

The choice is kept in a cookie for all pages, and the page is reloaded: the server makes most of its
words.
"""

from __future__ import annotations

import json

import gradio as gr

from app.texts import COOKIE, LANGUAGES, language_for, say
from app.ui.labels import text
from engine.units import DAY_SECONDS

A_YEAR_SECONDS = 365 * DAY_SECONDS
CHOOSE = f"""(language) => {{
  document.cookie = `{COOKIE}=${{language}}; path=/; max-age={A_YEAR_SECONDS}; samesite=lax`;
  location.reload();
}}"""


def build_language_choice(blocks: gr.Blocks, title: str) -> None:
    """Add the list; `title` is the key of the page's title."""
    names = [(name, language) for language, name in LANGUAGES.items()]
    chosen = gr.Dropdown(
        names,
        label=text("common.language"),
        show_label=False,
        container=False,
        elem_id="language",
        scale=0,
        min_width=120,
    )
    titles = json.dumps({language: say(title, language) for language in LANGUAGES})
    blocks.load(_current, None, [chosen], api_visibility="private").then(
        None,
        [chosen],
        None,
        js=f"(language) => {{ document.title = ({titles})[language]; }}",
        api_visibility="private",
    )
    chosen.input(None, [chosen], None, js=CHOOSE, api_visibility="private")


def _current(request: gr.Request) -> str:
    return language_for(request)
