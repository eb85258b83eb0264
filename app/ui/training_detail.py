"""The console's view of one example: prompt, sides, facts, and the buttons that decide about it."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from app.texts import say
from app.ui.changes import changes_update, changes_view
from app.ui.labels import text
from app.ui.training_rows import Detail, DisplayedRow, answer_id_of, conversation_of
from feedback_store.examples.split import split_of
from feedback_store.examples.types import SetAside


class DetailPanel:
    """The widgets about one row."""

    def __init__(self) -> None:
        self.hint = gr.Markdown(text("console.training.choose_row"))
        with gr.Column(visible=False, elem_id="detail") as self.column:
            self.prompt = gr.Textbox(
                label=text("console.training.prompt"),
                lines=2,
                max_lines=3,
                interactive=False,
                elem_id="prompt",
            )
            with gr.Row():
                self.first, self.second = (
                    gr.Textbox(lines=4, max_lines=5, min_width=200, elem_id=f"side-{n}")
                    for n in (1, 2)
                )
            self.changes = changes_view()
            self.facts = gr.Textbox(
                label=text("console.training.facts"),
                lines=4,
                max_lines=8,
                interactive=False,
                elem_id="facts",
            )
            self.note = gr.Textbox(
                "", placeholder=text("console.training.note"), show_label=False, elem_id="note"
            )
            with gr.Row():
                self.exclude = _button("console.training.exclude", "stop")
                self.edit = _button("console.training.edit", "primary")
                self.take_back, self.share, self.gold = (
                    _button("console.training.take_back"),
                    _button("console.training.share"),
                    _button("console.training.mark_gold"),
                )

    @property
    def widgets(self) -> list[Any]:
        """The widgets that `detail_updates` and `empty_detail_updates` update, in order."""
        return [
            self.hint,
            self.column,
            self.prompt,
            self.first,
            self.second,
            self.changes,
            self.facts,
            self.note,
            self.exclude,
            self.edit,
            self.take_back,
            self.share,
            self.gold,
        ]


def detail_updates(
    selected: DisplayedRow, about: Detail, *, gold: bool, taken: bool, shared: bool, language: str
) -> tuple[Any, ...]:
    """Return updates of the detail widgets for one row.

    `taken`: a decision about it can be undone; `shared`: its answer is approved as an example.
    """
    share_key = "console.training.unshare" if shared else "console.training.share"
    gold_key = "console.training.unmark_gold" if gold else "console.training.mark_gold"
    is_example = not isinstance(selected.row, SetAside)
    heldout = split_of(conversation_of(selected.row)) != "train"
    sides = [
        gr.update(
            label=say(f"console.training.sides.{name}", language),
            value=words,
            interactive=is_example,
            visible=True,
        )
        for name, words in selected.sides
    ]
    nothing = gr.update(visible=False, value="")
    return (
        gr.update(visible=False),
        gr.update(visible=True),
        "\n".join(
            _line(say(f"console.roles.{m.role}", language), m.transcript, language)
            for m in selected.prompt
        ),
        *(*sides, nothing, nothing)[:2],
        changes_update(about.changes),
        "\n".join(
            _line(say(f"console.facts.{name}", language), value, language)
            for name, value in about.facts
        ),
        "",
        gr.update(interactive=is_example),
        gr.update(interactive=is_example),
        gr.update(interactive=taken),
        gr.update(interactive=bool(answer_id_of(selected.row)), value=say(share_key, language)),
        gr.update(interactive=heldout, value=say(gold_key, language)),
    )


def empty_detail_updates(language: str, *, some: bool) -> tuple[Any, ...]:
    """Return updates of the detail widgets while no row is selected; `some`: there are rows."""
    key = "console.training.choose_row" if some else "console.training.no_rows"
    hint = gr.update(value=say(key, language), visible=True)
    return hint, gr.update(visible=False), *[gr.skip()] * 11


def _line(name: str, value: str, language: str) -> str:
    return say("console.fact", language, name=name, value=value)


def _button(key: str, look: Literal["primary", "secondary", "stop"] = "secondary") -> gr.Button:
    name = key.rpartition(".")[2].replace("_", "-")
    return gr.Button(text(key), variant=look, size="sm", min_width=90, elem_id=name)
