"""The console's tab on training data: lists examples and items set aside, with the reasons.

The operator can exclude and edit examples, undo that, mark conversations as gold and share answers
as examples. What people wrote is shown as text, never as HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import pandas as pd

from app.html.searching import search_for
from app.texts import DEFAULT, language_for, say, translated
from app.ui.columns import column_headers
from app.ui.errors import report_errors
from app.ui.labels import text
from app.ui.training_detail import DetailPanel, detail_updates, empty_detail_updates
from app.ui.training_rows import (
    ROWS_A_PAGE,
    DisplayedRow,
    answer_id_of,
    conversation_of,
    detail,
    display_rows,
    id_of,
)
from app.workspace import Workspace
from feedback_store.examples.types import EXAMPLE_KINDS, Pair, SetAside, TrainingExample
from feedback_store.records import PromptEvidence
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.view.candidates import SET_ASIDE, Item

ROW_COLUMNS = ["number", "reason", "question", "answer", "other_answer"]
COLUMN_WIDTHS: list[str | int] = ["56px", "22%", "22%", "22%", "22%"]
SHARED = ["question", "answer", "state"]
ANY = ""  # every reason


@dataclass
class TableState:
    """The state of one browser tab; the rows of its page stay on the server."""

    first: int = 0
    total: int = 0
    page: list[DisplayedRow] = field(default_factory=list)
    selected: DisplayedRow | None = None

    @property
    def range(self) -> str:
        """The range of rows on the page and their total, as text."""
        last = self.first + len(self.page)
        return f"{min(self.first + 1, last)}–{last} / {self.total}"


class TrainingDataPage:
    """The event handlers of the tab, on one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._reader = EvidenceReader(workspace.database)

    def show(
        self, kind: str, reason: str, search: str, view: TableState, request: gr.Request
    ) -> tuple[Any, ...]:
        """Show the rows that pass the filters, on the current page if there are enough."""
        language = language_for(request)
        training_set = self._workspace.training_set
        with report_errors(language):
            counts = training_set.refresh().counts
            reasons = counts[kind]
            wanted = reason if reason in reasons else None
            found = search_for(search, language, self._workspace.accounts)
            some, view.total = training_set.page(
                kind, wanted, found, first=view.first, count=ROWS_A_PAGE
            )
            if view.first >= max(1, view.total):  # fewer rows than before
                view.first = (view.total - 1) // ROWS_A_PAGE * ROWS_A_PAGE if view.total else 0
                some, _ = training_set.page(
                    kind, wanted, found, first=view.first, count=ROWS_A_PAGE
                )
        view.selected = None
        view.page = display_rows(some, self._evidence(some) if kind == SET_ASIDE else ())
        cells = [row.cells(view.first + i, language) for i, row in enumerate(view.page, start=1)]
        by_number = sorted(reasons.items(), key=lambda each: -each[1])
        named = [(f"{translated(r, language)} ({n})", r) for r, n in by_number]
        choices = [(say("console.training.any_reason", language), ANY), *named]
        numbers = {k: sum(each.values()) for k, each in counts.items()}
        return (
            view,
            pd.DataFrame(cells, columns=column_headers("row_columns", ROW_COLUMNS, language)),
            view.range,
            gr.update(choices=kind_choices(numbers, language)),
            gr.update(choices=choices, value=wanted or ANY),
            *empty_detail_updates(language, some=bool(cells)),
        )

    def from_start(
        self, kind: str, reason: str, search: str, view: TableState, request: gr.Request
    ) -> tuple[Any, ...]:
        """Show the first page, for new filters."""
        view.first = 0
        return self.show(kind, reason, search, view, request)

    def forward(
        self, kind: str, reason: str, search: str, view: TableState, request: gr.Request
    ) -> tuple[Any, ...]:
        """Show the next page."""
        view.first += ROWS_A_PAGE
        return self.show(kind, reason, search, view, request)

    def back(
        self, kind: str, reason: str, search: str, view: TableState, request: gr.Request
    ) -> tuple[Any, ...]:
        """Show the previous page."""
        view.first = max(0, view.first - ROWS_A_PAGE)
        return self.show(kind, reason, search, view, request)

    def choose(
        self, view: TableState, event: gr.SelectData, request: gr.Request
    ) -> tuple[Any, ...]:
        """Select a row and show its details."""
        language = language_for(request)
        number = int(event.row_value[0])  # the table may be sorted in the browser
        view.selected = view.page[number - 1 - view.first]
        workspace, row = self._workspace, view.selected.row
        with report_errors(language):
            about = detail(
                row,
                self._evidence([row]),
                workspace.curation,
                workspace.base.digest,
                workspace.registry.live().bundle,
                {each.id: each.name for each in workspace.accounts.list()},
                language,
            )
            gold = conversation_of(row) in workspace.curation.gold()
            decided = workspace.curation.decisions().get(id_of(row))
            shared = answer_id_of(row) in workspace.shared_examples.answer_ids()
        taken = decided is not None and decided.action != "include"
        return view, *detail_updates(
            view.selected, about, gold=gold, taken=taken, shared=shared, language=language
        )

    def exclude(self, note: str, view: TableState, request: gr.Request) -> None:
        """Never train on the chosen example."""
        with report_errors(language_for(request)):
            self._workspace.curation.exclude(_example(view, request), note)
        gr.Info(say("console.training.excluded", language_for(request)), duration=2)

    def edit(
        self, chosen: str, rejected: str, note: str, view: TableState, request: gr.Request
    ) -> None:
        """Replace the texts to train on; sides that were not edited stay unchanged."""
        example = _example(view, request)
        before = [side.text for side in example.sides]
        after = [chosen, rejected] if isinstance(example, Pair) else [chosen]
        new = [b if b != a else None for a, b in zip(before, after, strict=True)]
        with report_errors(language_for(request)):
            self._workspace.curation.edit(
                example, chosen=new[0], rejected=new[1] if len(new) > 1 else None, note=note
            )
        gr.Info(say("console.training.edited", language_for(request)), duration=2)

    def take_back(self, note: str, view: TableState, request: gr.Request) -> None:
        """Undo an exclusion or an edit."""
        with report_errors(language_for(request)):
            self._workspace.curation.take_back(id_of(_row(view, request)), note)
        gr.Info(say("console.training.taken_back", language_for(request)), duration=2)

    def toggle_gold(self, view: TableState, request: gr.Request) -> None:
        """Mark the row's conversation as gold, or remove the mark."""
        curation, conversation = self._workspace.curation, conversation_of(_row(view, request))
        with report_errors(language_for(request)):
            if conversation in curation.gold():
                curation.unmark_gold(conversation)
            else:
                curation.mark_gold(conversation)
        gr.Info(say("common.saved", language_for(request)), duration=2)

    def toggle_shared(self, view: TableState, request: gr.Request) -> None:
        """Share the row's answer with everybody as an example, or stop sharing it."""
        shared, answer_id = self._workspace.shared_examples, answer_id_of(_row(view, request))
        with report_errors(language_for(request)):
            if answer_id in shared.answer_ids():
                shared.withdraw(answer_id)
            else:
                shared.approve(answer_id)
        gr.Info(say("common.saved", language_for(request)), duration=2)

    def shared(self, request: gr.Request) -> tuple[Any, pd.DataFrame]:
        """Return the number and table of approved answers, with why one is not shown."""
        language = language_for(request)
        approvals = self._workspace.shared_examples.approvals()
        rows = [
            [example.question, example.answer, say("console.training.is_shown", language)]
            if (example := each.example)
            else ["", each.answer_id, translated(each.refusal, language)]
            for each in approvals
        ]
        label = f"{say('console.training.shared', language)} ({len(rows)})"
        columns = column_headers("shared_columns", SHARED, language)
        return gr.update(label=label), pd.DataFrame(rows, columns=columns)

    def _evidence(self, rows: Sequence[Item]) -> list[PromptEvidence]:
        return list(self._reader.of({conversation_of(row) for row in rows}))


def build_training_tab(workspace: Workspace, tab: gr.Tab) -> None:
    """Build the tab's widgets inside `tab`; they are filled when it is opened."""
    page = TrainingDataPage(workspace)
    view = gr.State(TableState())
    with gr.Row(equal_height=True):
        kind = gr.Radio(
            kind_choices({}, DEFAULT),
            value=EXAMPLE_KINDS[0],
            label=text("console.training.kind"),
            elem_id="kind",
            scale=5,
        )
        reason = gr.Dropdown(
            [(text("console.training.any_reason"), ANY)],
            value=ANY,
            label=text("console.training.reason"),
            elem_id="reason",
            scale=2,
            min_width=160,
        )
        search = gr.Textbox(
            "",
            label=text("console.training.search"),
            elem_id="search",
            scale=2,
            min_width=160,
            lines=1,
        )
    with gr.Row():
        with gr.Column(scale=1):
            rows = gr.Dataframe(
                headers=column_headers("row_columns", ROW_COLUMNS, DEFAULT),
                datatype="str",
                interactive=False,
                column_widths=COLUMN_WIDTHS,
                elem_id="rows",
                max_height=620,
                show_label=False,
                buttons=[],
            )
            with gr.Row():
                back = gr.Button("←", size="sm", scale=0, min_width=80, elem_id="back")
                where = gr.Markdown(elem_id="range")
                forward = gr.Button("→", size="sm", scale=0, min_width=80, elem_id="forward")
        with gr.Column(scale=1, min_width=480):
            about = DetailPanel()
    with gr.Accordion(text("console.training.shared"), open=False, elem_id="shared") as approved:
        shared = gr.Dataframe(
            headers=column_headers("shared_columns", SHARED, DEFAULT),
            datatype="str",
            interactive=False,
            wrap=True,
            show_label=False,
            buttons=[],
            column_widths=["35%", "35%", "30%"],
        )

    filters: Any = [kind, reason, search, view]
    shown_now: Any = [view, rows, where, kind, reason, *about.widgets]
    hidden: Any = {"api_visibility": "private"}
    tab.select(page.show, filters, shown_now, **hidden)
    tab.select(page.shared, None, [approved, shared], **hidden)
    gr.on([kind.input, reason.input, search.submit], page.from_start, filters, shown_now, **hidden)
    back.click(page.back, filters, shown_now, **hidden)
    forward.click(page.forward, filters, shown_now, **hidden)
    rows.select(page.choose, [view], [view, *about.widgets], **hidden)
    edited: Any = [about.first, about.second, about.note, view]
    for decided in (
        about.exclude.click(page.exclude, [about.note, view], None, **hidden),
        about.edit.click(page.edit, edited, None, **hidden),
        about.take_back.click(page.take_back, [about.note, view], None, **hidden),
        about.gold.click(page.toggle_gold, [view], None, **hidden),
    ):
        decided.success(page.show, filters, shown_now, **hidden)
    toggled = about.share.click(page.toggle_shared, [view], None, **hidden)
    toggled.success(page.shared, None, [approved, shared], **hidden)
    toggled.success(page.show, filters, shown_now, **hidden)


def kind_choices(counts: dict[str, int], language: str) -> list[tuple[str, str]]:
    """Return the choices of kinds, with each one's number of rows if it is known."""
    names = {
        kind: say(f"console.training.kinds.{kind}", language)
        for kind in (*EXAMPLE_KINDS, SET_ASIDE)
    }
    return [(f"{n} ({counts[kind]})" if counts else n, kind) for kind, n in names.items()]


def _row(view: TableState, request: gr.Request) -> Item:
    if view.selected is None:
        raise gr.Error(
            say("console.training.choose_row_first", language_for(request)), print_exception=False
        )
    return view.selected.row


def _example(view: TableState, request: gr.Request) -> TrainingExample:
    row = _row(view, request)
    if isinstance(row, SetAside):
        raise gr.Error(
            say("console.training.set_aside_already", language_for(request)), print_exception=False
        )
    return row
