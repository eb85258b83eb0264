"""The terms of a document's passages: which passages have them, and how often.

The counts depend on no other document, so that they never change. Knows texts and numbers; knows
nothing of scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.prompts.terms import tokens

GRAM = 4  # letters; McNamee and Mayfield 2004 find 4 best for European languages
CountArray = npt.NDArray[np.uint32]


def character_grams(text: str) -> Iterator[str]:
    """The content words as overlapping runs of four letters, with their ends marked; runs of
    Chinese, Japanese or Korean as single characters.

    They find "indexed" by "indexing", and a Chinese word by another that shares a character.
    """
    for token in tokens(text):
        if token.isascii():
            word = f"_{token}_"
            yield from (word[at : at + GRAM] for at in range(max(1, len(word) - GRAM + 1)))
        else:
            yield from token


@dataclass(frozen=True)
class TermIndex:
    """The counts of each term in each passage of one document.

    The passages with term i, and how often each has it, are `rows` and `counts` from `starts[i]` to
    `starts[i + 1]`. `lengths` has the number of terms of each passage.
    """

    terms: tuple[str, ...]
    starts: CountArray  # (terms + 1,)
    rows: CountArray  # (occurrences,)
    counts: CountArray  # (occurrences,)
    lengths: CountArray  # (passages,)

    @classmethod
    def of(cls, passages: Iterable[Iterable[str]]) -> TermIndex:
        """Count the terms of passages."""
        found: dict[str, list[tuple[int, int]]] = {}
        lengths = []
        for row, passage in enumerate(passages):
            counted = Counter(passage)
            lengths.append(counted.total())
            for term, count in counted.items():
                found.setdefault(term, []).append((row, count))
        flat = [pair for term in found for pair in found[term]]
        starts = np.cumsum([0, *(len(pairs) for pairs in found.values())])
        rows, counts = np.array(flat, dtype=np.uint32).reshape(-1, 2).T
        return cls(tuple(found), starts.astype(np.uint32), rows, counts, np.array(lengths, "u4"))

    @cached_property
    def place(self) -> dict[str, int]:
        """The number of each term."""
        return {term: at for at, term in enumerate(self.terms)}

    def occurrences(self, term: str) -> slice | None:
        """The place of a term in `rows` and `counts`; None if no passage has it."""
        at = self.place.get(term)
        return None if at is None else slice(int(self.starts[at]), int(self.starts[at + 1]))

    def save(self, file: Path) -> None:
        """Write it as arrays, without pickle."""
        names = np.frombuffer("\n".join(self.terms).encode(), dtype=np.uint8)
        with file.open("wb") as stream:
            np.savez(
                stream,
                names=names,
                starts=self.starts,
                rows=self.rows,
                counts=self.counts,
                lengths=self.lengths,
            )

    @classmethod
    def load(cls, file: Path) -> TermIndex:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            terms = tuple(arrays["names"].tobytes().decode().split("\n"))
            numbers = (arrays[name] for name in ("starts", "rows", "counts", "lengths"))
            return cls(terms, *numbers)
