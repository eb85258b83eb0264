"""Writes the figures of `benchmarks.results` as tables into `docs/results.md`.

No figure is typed by hand: everything between the page's two marks comes from the documents. The
interval alone decides whether a measure improved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_demos import demo_tables, machine
from benchmarks.results_runs import TRAINING_SIZES

Document = Mapping[str, Any]
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
MEASURED = PAGE.parent / "measured"
FIGURES = ("<!-- figures: begin -->", "<!-- figures: end -->")
DEMOS = ("<!-- demos: begin -->", "<!-- demos: end -->")
TITLES = {
    "gsm8k": "GSM8K solution pairs",
    **{f"gsm8k-{count}": f"GSM8K, {count} pairs" for count in TRAINING_SIZES},
    "oasst": "OASST pairs",
    "dpo-zh": "Chinese pairs",
    "cmath": "Chinese arithmetic",
    "seed-tasks": "Seed tasks",
    "kto": "Lone judgements",
}
KINDS = {
    "pairs": "preference pairs",
    "demonstrations": "answers to imitate",
    "unpaired": "answers called good or bad",
}
MEASURES = {
    "reward_accuracy_per_token": "accuracy of the implicit reward, per token",
    "reward_accuracy": "accuracy of the implicit reward, summed",
    "accuracy": "accuracy, per token",
    "accuracy_summed": "accuracy, summed",
    "margin_per_token": "margin, nats a token",
    "chosen_logprob_per_token": "chosen answer, nats a token",
    "logprob_per_token": "held-out answer, nats a token",
    "auc_log_ratio": "AUC of the change in log-probability",
    "auc_per_token": "AUC of the log-probability per token",
    "gap_per_token": "good less bad, nats a token",
    "good_logprob_per_token": "good answer, nats a token",
}
HEAD = (
    "| recipe | measure | before | after | each seed | difference, 95% interval | |",
    "|---|---|---|---|---|---|---|",
)


def demo_document(text: str) -> Document | None:
    """Return the figures in the output of `burnish demo --json`, its last line; None for others."""
    try:
        found = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) and "evidence" in found else None


def last_document(text: str) -> Document:
    """Return the last complete document of the command's output.

    Raises ValueError if there is none.
    """
    for line in (text, *reversed(text.splitlines())):
        try:
            found = json.loads(line)
        except ValueError:
            continue  # several documents, or a truncated line
        if isinstance(found, dict) and "experiments" in found:
            return found
    raise ValueError("there is no document of benchmarks.results in this file")


def keep_document(output: Path, folder: Path) -> None:
    """Write the document of a command's output into a folder, without what names a machine's paths.

    Raises ValueError if there is none.
    """
    text = output.read_text("utf-8")
    document = demo_document(text) or last_document(text)
    kept = {name: value for name, value in document.items() if name != "home"}
    folder.mkdir(exist_ok=True)
    (folder / f"{output.stem}.json").write_text(
        json.dumps(kept, ensure_ascii=False) + "\n", "utf-8"
    )


def write_figures(
    page: Path, documents: Sequence[Document], demos: Sequence[Document] = ()
) -> None:
    """Replace the text between the page's marks by the tables of what is given."""
    text = page.read_text("utf-8")
    if documents:
        text = _between(FIGURES, figures(documents), text)
    if demos:
        text = _between(DEMOS, "\n".join(demo_tables(demos)), text)
    page.write_text(text, "utf-8")


def _between(marks: tuple[str, str], tables: str, text: str) -> str:
    begin, end = marks
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return "\n".join([f"{head}{begin}", tables, f"{end}{tail}"])


def figures(documents: Sequence[Document]) -> str:
    """Return Markdown: each document's environment, experiments' tables, and lack of improvement.

    If an experiment is in several documents, the last one counts.
    """
    source = {name: document for document in documents for name in document["experiments"]}
    experiments = {name: document["experiments"][name] for name, document in source.items()}
    lines: list[str] = []
    for document in documents:
        if names := [name for name, other in source.items() if other is document]:
            lines += [_made_with(document, names), ""]
    for name, found in experiments.items():
        lines += [f"## {TITLES[name]} (`{name}`)", *_about(found), "", *HEAD, *_rows(found), ""]
    lines += ["## What did not improve", *_not_improved(experiments)]
    return "\n".join(lines)


def verdict(difference: Mapping[str, float]) -> str:
    """Return the verdict of an interval; for all measures more is better."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "no difference shown"


def _made_with(document: Document, names: Sequence[str]) -> str:
    made, told = document["made_with"], ", ".join(f"`{name}`" for name in names)
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    sizes = made["sizes"]
    return (
        f"{told}: {made['model']} model on {machine(made)}, scored in"
        f" {made['scored_in']}; Python {made['python']}, {versions}. At most"
        f" {sizes['training']} examples of {sizes['training_tokens']} tokens to train on and"
        f" {sizes['held_out']} of {sizes['held_out_tokens']} to score. The command took"
        f" {document['seconds'] / 60:.1f} min."
    )


def _about(found: Document) -> Iterator[str]:
    formats = sorted({row["trained_in"] for row in found["recipes"].values()})
    yield (
        f"`{found['file']}`: {found['training']} {KINDS[found['kind']]} of"
        f" {found['training_conversations']} conversations to train on, {found['held_out']} of"
        f" {found['held_out_conversations']} others held out; {found['too_long']} that came up in"
        f" the drawing were too long. Trained in {', '.join(formats)}."
    )
    if longer := found["longer_wins"]:
        yield (
            f'"The longer answer wins" scores {longer["estimate"]:.3f}'
            f" ({longer['low']:.3f} to {longer['high']:.3f}) on the held-out pairs."
        )


def _rows(found: Document) -> Iterator[str]:
    for recipe, row in found["recipes"].items():
        for name, measure in row["measures"].items():
            after, change = measure["after"], measure["difference"]
            cells = [
                recipe,
                MEASURES[name],
                f"{measure['before']:.3f}",
                f"{sum(after) / len(after):.3f}",
                ", ".join(f"{value:.3f}" for value in after),
                f"{change['estimate']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})",
                verdict(change),
            ]
            yield f"| {' | '.join(cells)} |"
            if name == "logprob_per_token":
                yield _perplexity(recipe, measure)


def _perplexity(recipe: str, measure: Mapping[str, Any]) -> str:
    """Return the same row as perplexity: e to the mean loss of a token; less is better."""
    before, after = math.exp(-measure["before"]), [math.exp(-value) for value in measure["after"]]
    mean = math.exp(-sum(measure["after"]) / len(after))
    each = ", ".join(f"{value:.2f}" for value in after)
    return f"| {recipe} | the same as perplexity | {before:.2f} | {mean:.2f} | {each} | | |"


def _not_improved(experiments: Mapping[str, Document]) -> Iterator[str]:
    nothing = True
    for name, found in experiments.items():
        for recipe, row in found["recipes"].items():
            for measure, figure in row["measures"].items():
                shown = verdict(figure["difference"])
                if shown != "better":
                    nothing = False
                    yield f"- `{name}`, {recipe}: {MEASURES[measure]}: {shown}."
    if nothing:
        yield "Every measure of every experiment above improved."
