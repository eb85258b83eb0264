"""Tables of `burnish demo --json`: the whole loop with a scripted user. Computes nothing new.

Each row ends with the minutes that the run took, and the machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

DemoFigures = Mapping[str, Any]
ONCE_HEAD = (
    "| evidence | seed | prompts | win rate over the base | median tokens | ended | gate | min |"
    " on |",
    "|---|---|---|---|---|---|---|---|---|",
)
ROUNDS_HEAD = (
    "| evidence | round | wish | pairs | win rate over the base | median tokens | perplexity |"
    " gate | min | on |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
OPPOSED_HEAD = (
    "| user wants | by | seed | win rate over the base | median tokens | told apart | gate | min |"
    " on |",
    "|---|---|---|---|---|---|---|---|---|",
)


def demo_tables(demos: Sequence[DemoFigures]) -> list[str]:
    """Return the Markdown lines of the tables: of one round, of several, of opposed users."""
    repeated = [demo for demo in demos if "rounds" in demo]
    opposed = [demo for demo in demos if "opposed" in demo]
    once = [demo for demo in demos if demo not in repeated and demo not in opposed]
    lines: list[str] = []
    if once:
        once = sorted(once, key=lambda demo: (_name(demo), demo["seed"]))
        rows = [row for demo in once for row in _once(demo)] + list(_over_seeds(once))
        lines += ["## The loop with a scripted user (`burnish demo`)", *ONCE_HEAD, *rows, ""]
    if repeated:
        rows = [row for demo in repeated for row in _rounds(demo)]
        lines += ["## Round after round (`burnish demo --rounds`)", *ROUNDS_HEAD, *rows, ""]
    if opposed:
        rows = [row for demo in opposed for row in _opposed(demo)]
        lines += ["## Two opposite wishes (`burnish demo --opposed`)", *OPPOSED_HEAD, *rows, ""]
    return lines


def _once(demo: DemoFigures) -> Iterator[str]:
    """A row for each kind of prompts, greedy and drawn."""
    for prompts, found in _by_prompts(demo):
        win = found["win_rate"]
        yield _row(
            _name(demo),
            demo["seed"],
            f"{win['prompts']} {prompts}",
            _interval(win),
            f"{found['median_tokens_before']:.0f} -> {found['median_tokens_after']:.0f}",
            f"{found['complete_before']:.0%} -> {found['complete_after']:.0%}",
            demo["gate"]["verdict"],
            *_cost(demo),
        )


def _over_seeds(demos: Sequence[DemoFigures]) -> Iterator[str]:
    """A row of means for each kind of evidence and prompts that several seeds were tried on."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for demo in demos:
        for prompts, found in _by_prompts(demo):
            rates[_name(demo), prompts].append(found["win_rate"]["estimate"])
    for (name, prompts), each in rates.items():
        if len(each) > 1:
            span = f"{mean(each):.2f} (seeds {min(each):.2f} to {max(each):.2f})"
            yield _row(name, f"{len(each)} seeds", prompts, span, *[""] * 5)


def _by_prompts(demo: DemoFigures) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The comparisons of a run, by the kind of its prompts and the choice of tokens.

    Runs of earlier versions have greedy answers alone.
    """
    for found, decoding in ((demo, ""), (demo.get("drawn"), ", drawn")):
        if found is not None:
            yield f"unseen{decoding}", found
            if found["other_prompts"] is not None:
                yield f"of another kind{decoding}", found["other_prompts"]


def _rounds(demo: DemoFigures) -> Iterator[str]:
    for found in demo["rounds"]:
        perplexity = found["perplexity"]
        yield _row(
            _name(demo),
            found["round"],
            found["wish"],
            f"{found['pairs']}, the newer ones" if found["older_left_out"] else found["pairs"],
            _interval(found["win_rate"]),
            f"{found['median_tokens_before']:.0f} -> {found['median_tokens_after']:.0f}",
            f"{perplexity['base']:.2f} -> {perplexity['release']:.2f}",
            found["gate"]["verdict"],
            *_cost(demo),
        )


def _opposed(demo: DemoFigures) -> Iterator[str]:
    """Two rows for each user: of their own examples, and of the release that both taught."""
    told_apart = "yes" if "opposed" in demo["alerts"] else "no"
    for wish, found in demo["opposed"].items():
        for by, figures in (("own examples", found["own_examples"]), ("release", found["release"])):
            yield _row(
                wish,
                by,
                demo["seed"],
                _interval(figures["win_rate"]),
                f"{figures['median_tokens_before']:.0f} -> {figures['median_tokens_after']:.0f}",
                told_apart,
                demo["gate"]["verdict"] if by == "release" else "-",
                *_cost(demo),
            )


def _name(demo: DemoFigures) -> str:
    """The evidence, and what was changed about it or about the recipe."""
    told = [demo["evidence"]]
    if demo.get("reversed_share"):
        told.append(f"{demo['reversed_share']:.0%} reversed")
    told += [f"`{key}` {value}" for key, value in demo.get("recipe", {}).items()]
    return ", ".join(told)


def _cost(demo: DemoFigures) -> tuple[str, str]:
    """The minutes of a run, and the machine."""
    return f"{demo['total_seconds'] / 60:.1f}", machine(demo["made_with"])


def machine(made: Mapping[str, Any]) -> str:
    """Name the machine of a document."""
    return f"{made['processor']}, {made['units']}, threads: {made['threads']}"


def _interval(win: Mapping[str, float]) -> str:
    return f"{win['estimate']:.2f} ({win['low']:.2f} to {win['high']:.2f})"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
