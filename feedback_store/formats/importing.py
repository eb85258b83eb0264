"""The import of a file into the store: all of it, or nothing and the list of its problems.

The file is read twice: the first time each record is understood and thrown away, the second time,
if nothing was wrong, the turns go into one transaction as they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args

from engine.errors import InvalidInput
from engine.messages import require_text
from engine.prompts.modes import PromptTemplate
from feedback_store.formats.catalogue import (
    CONVERSATION_FORMATS,
    IMPORT_FORMATS,
    ImportFormat,
    format_named,
    keys_of,
    names_that_match,
    read_turns,
)
from feedback_store.formats.fields import RawRow, UnusableRecord
from feedback_store.formats.reading import Record, layout_of, read_records
from feedback_store.formats.turns import Options, Ranks
from feedback_store.records import ImportedTurn

IMPORTED_TEMPLATE = PromptTemplate("plain", "", "", ())  # imported prompts come as they are
CONVERSATION = PromptTemplate("plain", None, "", ())  # a prompt is what was said before
IMPORT_USER = "import"
MAX_PROBLEMS_SHOWN = 20
TURNS_AT_ONCE = 200  # in one transaction; several thousand write in a second


class TurnStore(Protocol):
    """A store of judged turns, such as `FeedbackStore`."""

    def add_imported(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str, /
    ) -> int:
        """Store all turns or, where the iteration raises, none; returns how many."""
        ...


class ConversationStore(Protocol):
    """A store of a person's conversations, such as `FeedbackStore`."""

    def add_conversations(
        self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str, /
    ) -> int:
        """Store all turns that this person has not; returns how many conversations grew."""
        ...


@dataclass(frozen=True, slots=True)
class ConversationReport:
    """The result of an import into a person's list.

    `conversations` are those of the file, and `added` those of them that had something new.
    `set_aside`: conversations skipped, by reason.
    """

    format: str
    conversations: int
    added: int
    turns: int
    answers: int
    set_aside: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import: the format, and the number of rows. `set_aside`: records skipped."""

    format: str
    layout: str
    turns: int
    answers: int
    votes: int
    corrections: int
    comparisons: int
    set_aside: Mapping[str, int]


def import_file(
    store: TurnStore,
    file: Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the command line
    user: str = IMPORT_USER,
    ranks: Ranks = "all",
) -> ImportReport:
    """Store what a file holds; its format is found out unless it is named.

    `user` is who imports, and who said what the file says where it names nobody. `ranks` says
    whether each pair of ranked answers becomes a comparison, or only neighbours.
    Raises `InvalidInput` with every problem and its line or record, and then nothing is stored.
    """
    if ranks not in get_args(Ranks):
        raise InvalidInput(f"unknown ranks {ranks!r}; known: {', '.join(get_args(Ranks))}")
    options = Options(require_text(user, what="user"), ranks)
    layout = str(layout_of(file))
    name, set_aside = _check(file, format, options, IMPORT_FORMATS)
    tally: Counter[str] = Counter()
    store.add_imported(
        _counted(_turns(file, name, options), tally), IMPORTED_TEMPLATE, options.user
    )
    return ImportReport(
        format=name,
        layout=layout,
        turns=tally["turns"],
        answers=tally["answers"],
        votes=tally["votes"],
        corrections=tally["corrections"],
        comparisons=tally["comparisons"],
        set_aside=set_aside,
    )


def import_conversations(store: ConversationStore, file: Path, *, user: str) -> ConversationReport:
    """Put the conversations of another chat page into a person's list.

    Several at a time, so that what others write meanwhile does not wait for all of them; after a
    failure, the same file again adds what is missing. Raises `InvalidInput` as `import_file` does.
    """
    options = Options(require_text(user, what="user"))
    name, set_aside = _check(file, None, options, CONVERSATION_FORMATS)
    tally: Counter[str] = Counter()
    for turns in _whole_conversations(_counted(_turns(file, name, options), tally)):
        tally["conversations"] += len({turn.conversation for turn in turns})
        tally["added"] += store.add_conversations(turns, CONVERSATION, options.user)
    return ConversationReport(
        format=name,
        conversations=tally["conversations"],
        added=tally["added"],
        turns=tally["turns"],
        answers=tally["answers"],
        set_aside=set_aside,
    )


def _whole_conversations(turns: Iterable[ImportedTurn]) -> Iterator[list[ImportedTurn]]:
    """The turns, some at a time; those of one conversation, which stand together, stay so."""
    some: list[ImportedTurn] = []
    for turn in turns:
        if len(some) >= TURNS_AT_ONCE and turn.conversation != some[-1].conversation:
            yield some
            some = []
        some.append(turn)
    if some:
        yield some


def _turns(file: Path, name: str, options: Options) -> Iterator[ImportedTurn]:
    known = format_named(name)
    for record in read_records(file):
        if record.row is None:
            raise InvalidInput(f"{file.name} changed while it was read")
        with suppress(UnusableRecord):
            yield from read_turns(known, record.row, options)


def _counted(turns: Iterable[ImportedTurn], tally: Counter[str]) -> Iterator[ImportedTurn]:
    for turn in turns:
        tally["turns"] += 1
        tally["answers"] += len(turn.answers)
        tally["comparisons"] += len(turn.choices)
        for answer in turn.answers:
            tally["votes"] += len(answer.votes)
            tally["corrections"] += len(answer.corrections)
        yield turn


# The first reading


class _Problems:
    """The first problems and the number of all."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0

    def add(self, place: str, problem: str) -> None:
        self._count += 1
        if self._count <= MAX_PROBLEMS_SHOWN:
            self._shown.append(f"{place}: {problem}")

    def __bool__(self) -> bool:
        return self._count > 0

    def __str__(self) -> str:
        more = self._count - len(self._shown)
        return "; ".join(self._shown) + (f"; and {more} more" if more else "")


def _check(
    file: Path, name: str | None, options: Options, formats: Mapping[str, ImportFormat]
) -> tuple[str, dict[str, int]]:
    """The format of a file in which nothing is wrong, and why records of it are set aside."""
    told = name is not None
    problems, first_row, records = _Problems(), None, 0
    set_aside: Counter[str] = Counter()
    for record in read_records(file):
        records += 1
        if record.row is None:
            problems.add(record.place, record.problem)
            continue
        first_row = first_row or record.row
        name = name or _only_match(file, record, formats)
        try:
            if problem := _problem(record.row, name, told, options):
                problems.add(record.place, problem)
        except UnusableRecord as reason:
            set_aside[str(reason)] += 1
    if name is None and first_row is not None:
        raise InvalidInput(
            f"{file.name}: no known format has the keys {keys_of(first_row)}; "
            f"known formats: {', '.join(formats)}"
        )
    if problems:
        raise InvalidInput(f"{file.name}: {problems}")
    if not records or name is None:
        raise InvalidInput(f"{file.name} holds no records")
    if set_aside.total() == records:
        why = ", ".join(f"{reason} ({count})" for reason, count in sorted(set_aside.items()))
        raise InvalidInput(f"{file.name} holds no record to learn from: {why}")
    return name, dict(sorted(set_aside.items()))


def _only_match(file: Path, record: Record, formats: Mapping[str, ImportFormat]) -> str | None:
    """The format of a record, if there is one; two are one too many."""
    assert record.row is not None
    names = [name for name in names_that_match(record.row) if name in formats]
    if len(names) > 1:
        fitting = " and ".join(names)
        raise InvalidInput(
            f"{file.name}, {record.place}: fits {fitting}; say which it is; "
            f"its keys: {keys_of(record.row)}"
        )
    return names[0] if names else None


def _problem(row: RawRow, name: str | None, told: bool, options: Options) -> str:
    """The problem of a record, or "". Where the format was given, it is not questioned.

    Raises `UnusableRecord`.
    """
    if name is None:
        return f"no known format has the keys {keys_of(row)}"
    known = format_named(name)
    if not told and not known.matches(row) and (others := names_that_match(row)):
        return f"is {others[0]}, while the file began as {name}"
    try:
        read_turns(known, row, options)
    except InvalidInput as error:
        return str(error)
    return "" if told or known.matches(row) else f"is not {name}; its keys: {keys_of(row)}"
