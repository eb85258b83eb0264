"""The demo's figures: which model the scripted user prefers, and how long each stage took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from app.demo.scripted_user import Ranking, Wish, shown
from engine.hardware import describe_processor
from engine.request import Finished
from tuning.evaluation.statistics import win_rate
from tuning.recipe import Recipe, read_recipe

Say = Callable[[str], None]
NOT_OF_THE_RECIPE = ("seed",)  # each run names its own


def recipe_changes(recipe: Recipe) -> dict[str, Any]:
    """Return the values in which a recipe differs from the shipped one, as "joint.beta": 0.2."""
    ours, shipped = _flat(asdict(recipe)), _flat(asdict(read_recipe(None)))
    return {
        key: value
        for key, value in ours.items()
        if key not in NOT_OF_THE_RECIPE and value != shipped[key]
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of sections by "section.name"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return flat


class StageClock:
    """Measures the seconds of each stage."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block and print its seconds."""
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 1)
        self._say(f"{name}: {self.seconds[name]:.1f} s")

    def cost(self) -> dict[str, Any]:
        """Return the seconds of each stage and of all, and the machine that took them."""
        return {
            "seconds": self.seconds,
            "total_seconds": round(sum(self.seconds.values()), 1),
            "made_with": describe_processor(),
        }


def comparison(
    wish: Wish, rank: Ranking, before: Sequence[Finished], after: Sequence[Finished]
) -> dict[str, Any]:
    """Return how often the user prefers the answers after to those before, and their lengths.

    The answer of higher `rank` is preferred.
    """
    ranks = [(rank(shown(new)), rank(shown(old))) for old, new in zip(before, after, strict=True)]
    wins = sum(new > old for new, old in ranks)
    losses = sum(new < old for new, old in ranks)
    ties = len(ranks) - wins - losses
    return {
        "win_rate": {
            **asdict(win_rate(wins, ties, losses)),
            "wins": wins,
            "ties": ties,
            "losses": losses,
            "prompts": len(ranks),
        },
        "liked_before": sum(wish.likes(shown(answer)) for answer in before),
        "liked_after": sum(wish.likes(shown(answer)) for answer in after),
        "median_tokens_before": statistics.median(a.completion_tokens for a in before),
        "median_tokens_after": statistics.median(a.completion_tokens for a in after),
        "complete_before": sum(a.reason == "stop" for a in before) / len(before),
        "complete_after": sum(a.reason == "stop" for a in after) / len(after),
    }


def summary(figures: dict[str, Any]) -> str:
    """Describe the figures of a run in lines for a terminal."""
    swap = figures["swap"]
    return "\n".join(
        [
            "",
            *_prompts_lines(figures, "greedy"),
            *_prompts_lines(figures["drawn"], "drawn as in the chat"),
            f"held-out preference       {_number(figures['preference_accuracy_before'])} ->"
            f" {_number(figures['preference_accuracy_after'])} on {figures['heldout_pairs']} pairs",
            f"alerts                    {', '.join(figures['alerts']) or 'none'}",
            f"gate                      {figures['gate']['verdict']}",
            f"swap                      live after {swap['seconds_until_live']:.1f} s; the running"
            f" stream {'failed' if swap['stream_failed'] else 'finished'}, text"
            f" {'unchanged' if swap['stream_text_unchanged'] else 'CHANGED'}, longest gap"
            f" {swap['longest_gap_seconds']:.2f} s (median {swap['median_gap_seconds']:.2f} s)",
            f"rollback                  greedy answers"
            f" {'equal' if figures['rollback_restores_base'] else 'DIFFER FROM'} the base's",
            f"total                     {figures['total_seconds']:.0f} s",
            f"look at it                burnish serve --home {figures['home']}",
        ]
    )


def _prompts_lines(figures: dict[str, Any], decoding: str) -> list[str]:
    """Describe the comparisons on all prompts, by one way of choosing tokens."""
    lines = comparison_lines(f"unseen prompts, {decoding}", figures)
    if others := figures["other_prompts"]:
        lines += comparison_lines(f"prompts of another kind, {decoding}", others)
    return lines


def comparison_lines(prompts: str, figures: dict[str, Any]) -> list[str]:
    """Describe a comparison: win rate, length and share of complete answers."""
    win = figures["win_rate"]
    return [
        f"{prompts}:",
        f"win rate over the base    {win['estimate']:.2f} [{win['low']:.2f}, {win['high']:.2f}]"
        f"  ({win['wins']} won, {win['ties']} tied, {win['losses']} lost of {win['prompts']})",
        f"median answer, tokens     {figures['median_tokens_before']:.0f} ->"
        f" {figures['median_tokens_after']:.0f}",
        f"complete answers          {figures['complete_before']:.0%} ->"
        f" {figures['complete_after']:.0%}",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
