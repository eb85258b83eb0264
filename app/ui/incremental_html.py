"""The HTML of an answer that grows, as what is new in it.

Rendering the whole text with each token would take longer than making the token, and sending the
whole HTML many times its bytes. So blocks that are ended are rendered once, and of the rest's HTML
what differs from before is sent.
"""

from __future__ import annotations

from markdown_it.token import Token

from app.ui.markdown import NotMarkdown, parse
from app.ui.rendering import answer_html, blocks_html, plain_html, wrapped

Patch = tuple[int, str]  # UTF-16 units of the HTML before that stay, and what follows them


class IncrementalHtml:
    """The HTML of one text, as it was sent last."""

    def __init__(self) -> None:
        self._html = ""
        self._ended_text = ""  # blocks that nothing to come can change
        self._ended_html = ""

    def update(self, text: str, *, last: bool = False) -> Patch:
        """What is new of a text that begins as the one before; the last one is rendered whole."""
        html = answer_html(text) if last else self._render(text)
        same = _common_length(self._html, html)
        self._html = html
        return len(html[:same].encode("utf-16-le")) // 2, html[same:]

    def _render(self, text: str) -> str:
        try:
            if not text.startswith(self._ended_text):  # it was split otherwise before
                self._ended_text = self._ended_html = ""
            rest = text[len(self._ended_text) :]
            tokens = parse(rest)
            ended = _ended_tokens(tokens, rest)
            if ended:
                line = tokens[ended].map
                assert line is not None
                chars = sum(len(each) + 1 for each in rest.split("\n")[: line[0]])
                self._ended_html += blocks_html(tokens[:ended])
                self._ended_text += rest[:chars]
            return wrapped(self._ended_html + blocks_html(tokens[ended:]))
        except NotMarkdown:
            return plain_html(text)


def _ended_tokens(tokens: list[Token], text: str) -> int:
    """How many tokens belong to blocks that nothing to come can change: all but the last block,
    unless a formula is open, which may yet reach over several."""
    starts = [i for i, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0]
    if len(starts) < 2 or text.count("\\[") != text.count("\\]") or text.count("$$") % 2:
        return 0
    return starts[-1]


def _common_length(one: str, other: str) -> int:
    """The number of characters that two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices are compared faster than characters
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
