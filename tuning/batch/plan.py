"""Packing: which rows share a forward pass, and where each token of a pack is computed.

A row is a prompt with one or more completions. The prompt is laid out once, its completions after
it, each continuing the prompt's positions. Pure: knows token ids and how a family numbers them, no
weights and no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.models.architecture import CausalPositions, Positions


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of a prompt; `scored[i]` says whether token i counts in the loss."""

    ids: tuple[int, ...]
    scored: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class TrainingPrompt:
    """A prompt and its completions: one for fine-tuning, two for a pair."""

    ids: tuple[int, ...]
    completions: tuple[Completion, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens when the prompt is laid out once."""
        return len(self.ids) + sum(len(completion.ids) for completion in self.completions)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that attend to `prompt_start:prompt_end`, and causally to themselves.

    Bounds are places in the pack. The first completion of a row is laid out right after its
    prompt and makes one segment with it, whose own prompt is empty, or the row's prefix where the
    model reads it both ways: the segment's first tokens, which all of it attend to.
    """

    prompt_start: int
    prompt_end: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PackLayout:
    """A pack of prompts as one sequence of tokens, with one or more channels of positions.

    For each scored token: `sources` is the place whose hidden state predicts it, `targets` its id,
    and (`rows`, `columns`) where its log-probability goes in the trainer's grid. Row c * n + p is
    completion c of prompt p (n prompts), so that a pair's chosen rows come first, as in trl; a
    column i predicts token i + 1 of prompt and completion.
    """

    input_ids: tuple[int, ...]
    position_ids: tuple[tuple[int, ...], ...]  # (channels, tokens)
    segments: tuple[Segment, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def pack(sizes: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Indices of the items that share a pack, first fit by decreasing size.

    A pack holds at most `budget_tokens`, except that an item over the budget has one of its own.
    The packs and their items are in the items' order.
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = next((p for p, free in enumerate(room) if sizes[item] <= free), None)
        if place is None:
            packs.append([])
            room.append(budget_tokens)
            place = len(packs) - 1
        packs[place].append(item)
        room[place] -= sizes[item]
    return sorted(sorted(items) for items in packs)


def lay_out(prompts: Sequence[TrainingPrompt], positions: Positions | None = None) -> PackLayout:
    """Lay out one pack; `positions` are the model's, 0, 1, 2, ... where None is given.

    A token without a predecessor is not scored, as in any causal model.
    """
    numbering = positions or CausalPositions()
    ids: list[int] = []
    places: list[list[int]] = []  # a token's positions by channel
    segments: list[Segment] = []
    scored: list[tuple[int, int, int, int]] = []
    for number, prompt in enumerate(prompts):
        start = len(ids)
        prompt_end = start + len(prompt.ids)
        ids += prompt.ids
        for side, completion in enumerate(prompt.completions):
            begun = len(ids)
            ids += completion.ids
            row = prompt.ids + completion.ids
            first = side == 0
            places += numbering(row, 0 if first else len(prompt.ids), len(row)).tolist()
            segments.append(
                Segment(start, start + numbering.prefix(row), start, len(ids))
                if first
                else Segment(start, prompt_end, begun, len(ids))
            )
            for index, counts in enumerate(completion.scored):
                source = prompt_end - 1 if index == 0 else begun + index - 1
                column = len(prompt.ids) + index - 1
                if counts and column >= 0:
                    into = side * len(prompts) + number
                    scored.append((source, completion.ids[index], into, column))
    sources, targets, rows, columns = zip(*scored, strict=True) if scored else ((), (), (), ())
    channels = tuple(zip(*places, strict=True))
    return PackLayout(tuple(ids), channels, tuple(segments), sources, targets, rows, columns)
