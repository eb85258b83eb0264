"""Personal data and secrets in a text, and the text without them.

Knows how findings become placeholders, which of two overlapping findings stands, and how to read
full-width characters. Knows nothing about any one kind (`recognizers`, `credentials`), nor about
the store: what people wrote is kept as they wrote it, and redacted on its way to training.

What has no shape of its own is not looked for: names, postal addresses, passwords of plain words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from feedback_store.privacy.findings import Finding, Recognizer

_WIDE = {0xFF00 + offset: 0x20 + offset for offset in range(0x01, 0x5F)}  # U+FF01 is "!" and so on
_SPACES = dict.fromkeys((0x00A0, 0x2007, 0x202F, 0x3000), " ")
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
_PLAIN: dict[int, int | str] = {**_WIDE, **_SPACES, **_DASHES}


class Redactor:
    """Finds personal data and secrets by rule; the same text always gives the same findings.

    Making one costs nothing: the recognisers and their libraries are read at the first call, once
    in a process. Instances hold no state, so threads may share one. Nothing is ever downloaded.
    """

    @cached_property
    def _recognizers(self) -> tuple[Recognizer, ...]:
        from feedback_store.privacy import credentials, recognizers

        return (*recognizers.PERSONAL_RECOGNIZERS, *credentials.CREDENTIAL_RECOGNIZERS)

    def find(self, text: str) -> tuple[Finding, ...]:
        """Find personal data and secrets, in order, without overlaps.

        No recogniser matches across "<" or ">", or past one for its evidence. So a text where
        findings are filled up with them reads as the redacted text will, and it is searched
        again until nothing is left to find: what `redact` returns holds no more findings.
        """
        plain = text if text.isascii() else text.translate(_PLAIN)
        found: list[Finding] = []
        while fresh := self._search(plain):
            found += fresh
            plain = _replaced(plain, fresh, lambda finding: "<" * (finding.end - finding.begin))
        return tuple(sorted(found, key=lambda finding: finding.begin))

    def redact(self, text: str) -> str:
        """The text with each finding replaced by its kind in angle brackets, as in `<EMAIL>`.

        Redacting twice changes nothing more.
        """
        return _replaced(text, self.find(text), lambda finding: f"<{finding.kind}>")

    def _search(self, text: str) -> list[Finding]:
        return _without_overlap(
            text, [finding for recognize in self._recognizers for finding in recognize(text)]
        )


def _without_overlap(text: str, candidates: list[Finding]) -> list[Finding]:
    """The findings in order; of two that overlap the longer stands, as it hides more."""
    taken = bytearray(len(text) if candidates else 0)
    kept = []
    for finding in sorted(candidates, key=lambda f: (f.begin - f.end, -f.score, f.begin)):
        if taken.find(1, finding.begin, finding.end) < 0:
            taken[finding.begin : finding.end] = b"\1" * (finding.end - finding.begin)
            kept.append(finding)
    return sorted(kept, key=lambda finding: finding.begin)


def _replaced(text: str, findings: Iterable[Finding], by: Callable[[Finding], str]) -> str:
    pieces, at = [], 0
    for finding in findings:
        pieces += [text[at : finding.begin], by(finding)]
        at = finding.end
    return "".join([*pieces, text[at:]])
