"""Tables of `burnish demo --json`: the whole loop with a scripted user. Computes nothing new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DemoFigures = Mapping[str, Any]
ONCE_HEAD = (
    "| evidence | seed | prompts | win rate over the base | median tokens | ended | gate | min |",
    "|---|---|---|---|---|---|---|---|",
)
ROUNDS_HEAD = (
    "| evidence | round | wish | pairs | win rate over the base | median tokens | perplexity |"
    " gate |",
    "|---|---|---|---|---|---|---|---|",
)


def demo_tables(demos: Sequence[DemoFigures]) -> list[str]:
    """Return the Markdown lines of the runs' tables: of one round each, then of several."""
    once = [demo for demo in demos if "rounds" not in demo]
    repeated = [demo for demo in demos if "rounds" in demo]
    lines: list[str] = []
    if once:
        rows = [row for demo in once for row in _once(demo)]
        lines += ["## The loop with a scripted user (`burnish demo`)", *ONCE_HEAD, *rows, ""]
    if repeated:
        rows = [row for demo in repeated for row in _rounds(demo)]
        lines += ["## Round after round (`burnish demo --rounds`)", *ROUNDS_HEAD, *rows, ""]
    return lines


def _once(demo: DemoFigures) -> Iterator[str]:
    """A row for the unseen prompts, and one for those of another kind."""
    for prompts, found in (("unseen", demo), ("of another kind", demo["other_prompts"])):
        if found is None:
            continue
        win = found["win_rate"]
        yield _row(
            _name(demo),
            demo["seed"],
            f"{win['prompts']} {prompts}",
            _interval(win),
            f"{found['median_tokens_before']:.0f} -> {found['median_tokens_after']:.0f}",
            f"{found['complete_before']:.0%} -> {found['complete_after']:.0%}",
            demo["gate"]["verdict"],
            f"{demo['total_seconds'] / 60:.1f}",
        )


def _rounds(demo: DemoFigures) -> Iterator[str]:
    for found in demo["rounds"]:
        perplexity = found["perplexity"]
        yield _row(
            demo["evidence"],
            found["round"],
            found["wish"],
            f"{found['pairs']}, the newer ones" if found["older_left_out"] else found["pairs"],
            _interval(found["win_rate"]),
            f"{found['median_tokens_before']:.0f} -> {found['median_tokens_after']:.0f}",
            f"{perplexity['base']:.2f} -> {perplexity['release']:.2f}",
            found["gate"]["verdict"],
        )


def _name(demo: DemoFigures) -> str:
    """The evidence, and what was changed about it."""
    told = [demo["evidence"]]
    if demo["reversed_share"]:
        told.append(f"{demo['reversed_share']:.0%} reversed")
    if demo["opposed"]:
        told.append("two opposed users")
        if "opposed" in demo["alerts"]:
            told.append("told apart")
    return ", ".join(told)


def _interval(win: Mapping[str, float]) -> str:
    return f"{win['estimate']:.2f} ({win['low']:.2f} to {win['high']:.2f})"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
