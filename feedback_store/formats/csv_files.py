"""CSV for spreadsheets: one row an example, its texts in cells that no spreadsheet computes.

OWASP ("CSV Injection") advises to quote all cells and to put a single quote before one that begins
as a formula does. Here a cell that begins with a single quote of its own gets another, so that
taking one away always gives the text back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

from engine.errors import InvalidInput
from engine.messages import question_index
from feedback_store.examples.types import TrainingExample
from feedback_store.formats.fields import RawRow, optional_text, required_text
from feedback_store.formats.trl import completion_turns, preference_turns, unpaired_turns
from feedback_store.formats.turns import Options
from feedback_store.records import ImportedTurn

# As OWASP lists them: signs that start a formula, their full-width twins, tab and line ends.
RISKY = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "'")
COMPLETIONS = {"chosen", "rejected", "completion"}
FLAG_CELLS = ("label", "chosen_complete", "rejected_complete", "completion_complete")


def guarded(cell: str) -> str:
    """The cell with a single quote before it where it could be taken for a formula."""
    return f"'{cell}" if cell.startswith(RISKY) else cell


def unguarded(cell: str) -> str:
    """Inverse of `guarded`."""
    return cell.removeprefix("'")


def csv_bytes(examples: Iterable[TrainingExample]) -> bytes:
    """A header and one row for each example; all of one kind.

    The question stands alone in `question`, what went before it as JSON in `context`; system
    messages after it, where an example has any, in `context_after`. With a byte order mark, without
    which spreadsheets take UTF-8 for something else.
    """
    out = io.StringIO(newline="")
    rows = [_cells(example) for example in examples]
    header = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(out, list(header), restval="", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8-sig")


def csv_turns(row: RawRow, options: Options) -> Iterator[ImportedTurn]:
    """Reads what `csv_bytes` writes."""
    cells: dict[str, object] = {key: unguarded(text_of) for key, text_of in _texts(row)}
    question = {"role": "user", "content": required_text(cells, "question")}
    before, after = (_context(cells, name) for name in ("context", "context_after"))
    cells["prompt"] = [*before, question, *after]
    for key in FLAG_CELLS:
        if key in cells:
            cells[key] = {"true": True, "false": False}.get(str(cells[key]).lower())
    if "chosen" in cells:
        return preference_turns(cells, options)
    return unpaired_turns(cells, options) if "label" in cells else completion_turns(cells, options)


def _cells(example: TrainingExample) -> dict[str, str]:
    """The row of an example with text alone in it."""
    row = example.as_dict()
    prompt, at = row.pop("prompt"), question_index(example.prompt)
    if at is None:
        raise InvalidInput(f"example {example.id[:80]} has no question to put into a row")
    for name in COMPLETIONS & row.keys():
        row[name] = row[name][0]["content"]
    row = {"question": prompt[at]["content"], "context": prompt[:at] or "", **row}
    if after := prompt[at + 1 :]:
        row["context_after"] = after
    return {key: guarded(_cell(value)) for key, value in row.items()}


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(row: RawRow) -> Iterator[tuple[str, str]]:
    for key in row:
        yield key, optional_text(row, key)


def _context(cells: RawRow, name: str) -> list[object]:
    try:
        found = json.loads(optional_text(cells, name) or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise InvalidInput(f"{name!r} must be a list of messages in JSON")
    return found
