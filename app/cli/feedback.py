"""`burnish feedback`: inspect, curate, freeze, import, export and erase feedback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.accounts import COMMAND_LINE
from app.cli.common import HomeOption, Json, open_workspace, print_result
from app.cli.examples import examples_app
from app.cli.inbox import show_alerts, show_inbox
from app.cli.judging import judge
from app.cli.siblings import siblings
from app.cli.sync import sync_app
from engine.units import DAY_SECONDS

if TYPE_CHECKING:
    from app.workspace import Workspace
    from feedback_store.examples.types import SetAside, TrainingExample

feedback_app = typer.Typer(no_args_is_help=True, help="What people said, and what it can teach.")
feedback_app.add_typer(examples_app, name="examples")
feedback_app.add_typer(sync_app, name="sync")

ExampleId = Annotated[str, typer.Argument(help="An example's id, or its beginning.")]
Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]


@feedback_app.command("stats")
def stats(home: HomeOption = None, as_json: Json = False) -> None:
    """Count turns, answers, votes, corrections and pairs."""
    with open_workspace(home) as workspace:
        selected = workspace.training_set.refresh(reestimate=True)
        counts: dict[str, Any] = {
            **workspace.store.counts(),
            "pairs": selected.count("pairs"),
            "unpaired": selected.count("unpaired"),
            "demonstrations": selected.count("demonstrations"),
            "flip_rate": selected.flip_rate,
            "set_aside": selected.counts["set_aside"],
        }
    print_result(as_json, counts, "\n".join(_stat_lines(counts)))


def _stat_lines(counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each count, and those set aside by their reasons."""
    said = dict(counts)
    flip_rate, aside = said.pop("flip_rate"), said.pop("set_aside")
    yield from (f"{key:15} {value}" for key, value in said.items())
    yield f"{'set aside':15} {sum(aside.values())}"
    yield from (f"{count:>21}  {reason}" for reason, count in aside.items())
    yield "votes that err  " + (
        "unknown, since several people must judge the same answers (flip rate)"
        if flip_rate is None
        else f"{flip_rate:.0%} (flip rate)"
    )


@feedback_app.command("pairs")
def pairs(
    home: HomeOption = None,
    explain: Annotated[
        bool, typer.Option(help="Also lone judgements, demonstrations and what is set aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the current preference pairs, each with its origin."""
    from feedback_store.examples.explanation import explain as explained

    with open_workspace(home) as workspace:
        workspace.training_set.refresh(reestimate=True)
        _, examples = workspace.training_set.load_examples()
        base, incumbent = workspace.base.digest, workspace.registry.live().bundle
        texts = workspace.store.texts([a for s in examples.set_aside for a in s.answer_ids])
    document = {"pairs": [explained(pair, base, incumbent) for pair in examples.pairs]}
    if explain:
        document |= {
            "unpaired": [explained(e, base, incumbent) for e in examples.unpaired],
            "demonstrations": [explained(e, base, incumbent) for e in examples.demonstrations],
            "set_aside": [_set_aside(item, texts) for item in examples.set_aside],
        }
    print_result(as_json, document, "\n\n".join(map(_lines, _flat(document))))


@feedback_app.command("exclude")
def exclude(
    example: ExampleId, note: Note = "", home: HomeOption = None, as_json: Json = False
) -> None:
    """Never train on an example."""
    with open_workspace(home) as workspace:
        found = _example(workspace, example)
        workspace.curation.exclude(found, note)
    print_result(as_json, {"excluded": found.id}, f"excluded: {found.id}")


@feedback_app.command("include")
def include(
    example: ExampleId, note: Note = "", home: HomeOption = None, as_json: Json = False
) -> None:
    """Undo an exclusion or an edit."""
    with open_workspace(home) as workspace:
        decided = _decided(workspace, example)
        workspace.curation.take_back(decided, note)
    print_result(as_json, {"included": decided}, f"included: {decided}")


@feedback_app.command("edit")
def edit(
    example: ExampleId,
    chosen: Annotated[str | None, typer.Option(help="Words for the better side.")] = None,
    rejected: Annotated[str | None, typer.Option(help="Words for the worse side.")] = None,
    note: Note = "",
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Replace the text to train on; the original stays in the store."""
    with open_workspace(home) as workspace:
        found = _example(workspace, example)
        workspace.curation.edit(found, chosen=chosen, rejected=rejected, note=note)
    print_result(as_json, {"edited": found.id}, f"edited: {found.id}")


@feedback_app.command("gold")
def gold(
    conversation: Annotated[str, typer.Argument(help="A held-out conversation's id.")],
    undo: Annotated[bool, typer.Option("--undo", help="Put it back.")] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Mark a held-out conversation as gold: part of the gate's yardstick, never trained on."""
    with open_workspace(home) as workspace:
        if undo:
            workspace.curation.unmark_gold(conversation)
        else:
            workspace.curation.mark_gold(conversation)
        marked = sorted(workspace.curation.gold())
    print_result(as_json, {"gold": marked}, f"{len(marked)} gold conversations")


@feedback_app.command("snapshot")
def snapshot(
    home: HomeOption = None,
    verify: Annotated[str | None, typer.Option(help="Derive this snapshot anew.")] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="What changed from one to another.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Freeze the current examples; prints the snapshot's id."""
    if verify:
        _verify(home, verify, as_json)
        return
    if diff:
        _diff(home, *diff, as_json)
        return
    from engine.storage import folder_of, read_manifest

    with open_workspace(home) as workspace:
        digest = workspace.take_snapshot()
        manifest = read_manifest(folder_of(workspace.home.snapshots, digest))
    print_result(as_json, {"snapshot": digest, "counts": manifest["counts"]}, digest)


def _verify(home: Path | None, snapshot_id: str, as_json: bool) -> None:
    from engine.storage import find_digest
    from feedback_store.snapshots.snapshot import verify_snapshot

    with open_workspace(home) as workspace:
        root = workspace.home.snapshots
        digest = find_digest(root, snapshot_id)
        problems = verify_snapshot(root, digest)
    print_result(
        as_json, {"snapshot": digest, "problems": problems}, "\n".join(problems) or "intact"
    )
    if problems:
        raise typer.Exit(1)


def _diff(home: Path | None, old: str, new: str, as_json: bool) -> None:
    from dataclasses import asdict

    from engine.storage import find_digest
    from feedback_store.snapshots.snapshot import diff as compare
    from feedback_store.snapshots.snapshot import open_snapshot

    with open_workspace(home) as workspace:
        root = workspace.home.snapshots
        before, after = (open_snapshot(root, find_digest(root, each)) for each in (old, new))
    difference = asdict(compare(before, after))
    lines = [
        f"{place:22} {change:8} {len(ids)}"
        for change, places in difference.items()
        for place, ids in places.items()
        if ids
    ]
    print_result(as_json, difference, "\n".join(lines) or "no difference")


@feedback_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON, JSON lines or CSV.")],
    home: HomeOption = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="[default: found out from the content]")
    ] = None,
    user: Annotated[str, typer.Option(help="Who says so, where the file names nobody.")] = "import",
    adjacent: Annotated[
        bool, typer.Option("--adjacent", help="Of ranked answers, compare neighbours alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import feedback from a file, all or nothing. Detects the format."""
    from dataclasses import asdict

    from feedback_store.formats import import_file

    with open_workspace(home) as workspace:
        report = asdict(
            import_file(
                workspace.store,
                file,
                format=format,
                user=user,
                ranks="adjacent" if adjacent else "all",
            )
        )
    counted = ("turns", "answers", "votes", "corrections", "comparisons")
    taken = ", ".join(f"{report[what]} {what}" for what in counted)
    aside = "".join(f"\nset aside: {n} ({why})" for why, n in report["set_aside"].items())
    print_result(as_json, report, f"{report['format']} ({report['layout']}): {taken}{aside}")


feedback_app.command("judge")(judge)
feedback_app.command("inbox")(show_inbox)
feedback_app.command("alerts")(show_alerts)
feedback_app.command("siblings")(siblings)


@feedback_app.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="File or folder; must not exist.")],
    home: HomeOption = None,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(help="trl, llama-factory, sharegpt or csv.")
    ] = "trl",
    kind: Annotated[
        str, typer.Option(help="pairs, unpaired or demonstrations; llama-factory takes all.")
    ] = "pairs",
    as_json: Json = False,
) -> None:
    """Write the current examples for other tools."""
    from feedback_store.formats import export_examples

    with open_workspace(home) as workspace:
        workspace.training_set.refresh(reestimate=True)
        _, examples = workspace.training_set.load_examples()
        chosen = examples.every if format == "llama-factory" else examples.of_kind(kind)
        count = export_examples(chosen, target, format=format)
    print_result(
        as_json, {"examples": count, "target": str(target)}, f"{count} written to {target}"
    )


@feedback_app.command("forget")
def forget(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Erase a person: rows, examples, snapshot entries, and adapters that learnt from them."""
    from dataclasses import asdict

    with open_workspace(home) as workspace:
        receipt = workspace.forgetting.forget(user)
        workspace.accounts.audit.record(COMMAND_LINE, "forget", f"erasure {receipt.number}")
        if receipt.bundles:
            workspace.releases.wait_until_served(workspace.registry.live())
    print_result(as_json, {"user": user, **asdict(receipt)}, _receipt(user, asdict(receipt)))


@feedback_app.command("retain")
def retain(
    days: Annotated[int, typer.Argument(min=1, help="Conversations that ended before go.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Delete conversations that ended so many days ago, in the store and in snapshots."""
    from dataclasses import asdict

    with open_workspace(home) as workspace:
        receipt = workspace.forgetting.forget_before(time.time() - days * DAY_SECONDS)
    if receipt is None:
        print_result(as_json, {"rows": {}}, "nothing is that old")
    else:
        print_result(as_json, asdict(receipt), _receipt(None, asdict(receipt)))


@feedback_app.command("consent")
def consent(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    allowed: Annotated[bool, typer.Option("--yes/--no", help="May it be trained on?")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Set whether a person's words may be trained on."""
    with open_workspace(home) as workspace:
        workspace.curation.set_consent(user, allowed)
    print_result(
        as_json, {"user": user, "allowed": allowed}, "allowed" if allowed else "not allowed"
    )


def _example(workspace: Workspace, beginning: str) -> TrainingExample:
    """Return the example whose id begins so; raises `UnknownId` for none or several."""
    workspace.training_set.refresh()
    return workspace.training_set.find(beginning)


def _decided(workspace: Workspace, beginning: str) -> str:
    from engine.errors import UnknownId

    ids = [each for each in workspace.curation.decisions() if each.startswith(beginning)]
    if len(ids) != 1:
        raise UnknownId(f"no one decision is about an example {beginning[:80]!r}")
    return ids[0]


def _set_aside(item: SetAside, texts: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": "set aside",
        "reason": item.reason,
        "conversation": item.conversation_id,
        "events": list(item.event_ids),
        "users": list(item.user_ids),
        "texts": [texts.get(answer_id, "") for answer_id in item.answer_ids],
        "id": item.example_id,
    }


def _flat(document: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for rows in document.values() for row in rows]


def _lines(row: dict[str, Any]) -> str:
    """Return one example, or one item set aside, as text for a terminal."""
    if row["kind"] == "set aside":
        head = f"set aside: {row['reason']}"
        body = [f"  text:      {text}" for text in row["texts"]]
    else:
        head = f"[{row['kind']}: {row['source']}, {row['policy']}-policy] {row['question']}"
        body = [
            f"  {name + ':':10} {row[name]['text']}  ({row[name]['written_by'][:19]})"
            for name in ("chosen", "rejected", "completion")
            if name in row
        ]
        better = row.get("chosen") or row["completion"]
        body.append(f"  answer:    {better['answer']}")
        if "label" in row:
            body.append(f"  judged:    {'good' if row['label'] else 'bad'}")
    events = ", ".join(map(str, row["events"]))
    foot = [
        f"  because:   events {events} of {', '.join(row['users'])}",
        f"  id:        {row['id']}",
    ]
    return "\n".join([head, *body, *foot])


def _receipt(user: str | None, receipt: dict[str, Any]) -> str:
    """Return the receipt as text for a terminal."""
    rows = ", ".join(f"{n} {table}" for table, n in receipt["rows"].items() if n)
    whom = "forgotten" if user is None else f"user {user} is forgotten"
    lines = [
        f"receipt {receipt['number']}: {whom}",
        f"  rows        {rows or 'none'}, in {receipt['conversations']} conversations",
        f"  snapshots   {len(receipt['snapshots'])} replaced",
        f"  adapters    {len(receipt['bundles'])} tainted, retired and deleted",
        f"  live        {receipt['live'] or 'base'}",
    ]
    if receipt["retrain"]:
        lines.append("  to do       burnish tune: make an adapter that never saw this person")
    return "\n".join([*lines, f"  backups     {receipt['backups']}"])
