"""The type of what recognisers find in a text. Knows no kind of recogniser and no redaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["EMAIL", "PHONE", "CARD", "IBAN", "IP", "CN_ID", "CN_MOBILE", "SECRET"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`text[begin:end]` is of this kind; `begin` and `end` count characters.

    `score` ranks the evidence in [0, 1]: 1 where a checksum holds, less where only the shape or
    the words before speak for it. It is our own ranking, not a measured probability.
    """

    kind: Kind
    begin: int
    end: int
    score: float


Recognizer = Callable[[str], Iterator[Finding]]
