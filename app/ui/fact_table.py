"""A table of facts as HTML: a name, a value and a phrase in each row; narrow screens stack them.

Every value is escaped, so it may come from a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

TABLE_CSS = """
.fact-table {display: grid; gap: 0; margin: 0; max-width: 1100px; line-height: 1.5}
.fact-row {display: grid; grid-template-columns: minmax(200px, 2fr) minmax(200px, 3fr) 4fr;
  gap: 4px 24px; padding: 8px 0; border-bottom: 1px solid var(--border-color-primary)}
.fact-row dt {font-family: var(--font-mono); font-size: 13px; overflow-wrap: anywhere}
.fact-row dd {margin: 0; overflow-wrap: anywhere; color: var(--body-text-color)}
.fact-row .value {font-family: var(--font-mono); font-size: 13px}
.fact-row .quiet, .fact-row dd.note, .fact-row .badge {
  color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.fact-row .badge {display: inline-block; margin-inline-start: 8px; font-size: 12px;
  white-space: nowrap}
.fact-row .badge.marked {padding: 0 8px; border: 1px solid #1f5eff; border-radius: 8px;
  color: var(--body-text-color)}
@media (max-width: 640px) {.fact-row {grid-template-columns: 1fr}}
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """A row: `badge` stands beside the value, and is `marked` where it matters.

    `quiet`: the value says that there is none.
    """

    name: str
    value: str
    note: str = ""
    badge: str = ""
    marked: bool = False
    quiet: bool = False


def fact_table(facts: Iterable[Fact], identifier: str) -> str:
    """Return the table; `identifier` is its id in the page."""
    rows = "".join(_row(fact) for fact in facts)
    return f'<dl class="fact-table" id="{identifier}">{rows}</dl>'


def _row(fact: Fact) -> str:
    badge = ""
    if fact.badge:
        marked = " marked" if fact.marked else ""
        badge = f'<span class="badge{marked}">{escape(fact.badge)}</span>'
    quiet = " quiet" if fact.quiet else ""
    return (
        f'<div class="fact-row"><dt>{escape(fact.name)}</dt>'
        f'<dd><span class="value{quiet}">{escape(fact.value)}</span>{badge}</dd>'
        f'<dd class="note">{escape(fact.note)}</dd></div>'
    )
