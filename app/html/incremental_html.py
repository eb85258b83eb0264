"""Incremental rendering: the HTML of a growing answer as a series of patches.

Rendering the whole text at each token would take longer than generating the token, and sending the
whole HTML would multiply the traffic. So finished blocks are rendered once, and only the HTML after
the first difference is sent.
"""

from __future__ import annotations

from markdown_it.token import Token

from app.html.markdown import NotMarkdown, parse
from app.html.rendering import answer_html, blocks_html, plain_html, wrapped
from engine.common_prefix import common_prefix_length

Patch = tuple[int, str]  # (UTF-16 units of the old HTML to keep, HTML that follows them)


class IncrementalHtml:
    """The HTML of one growing text, as of the last patch."""

    def __init__(self) -> None:
        self._html = ""
        self._ended_text = ""  # finished blocks, which later text cannot change
        self._ended_html = ""

    def update(self, text: str, *, last: bool = False) -> Patch:
        """Return the patch to the HTML of a longer text; the last text is rendered as a whole."""
        html = answer_html(text) if last else self._render(text)
        same = common_prefix_length(self._html, html)
        self._html = html
        return len(html[:same].encode("utf-16-le")) // 2, html[same:]

    def _render(self, text: str) -> str:
        try:
            if not text.startswith(self._ended_text):  # the earlier text was split differently
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
    """Return the number of tokens in finished blocks: all but the last block, or none while a
    formula is open, since it may extend over several blocks."""
    starts = [i for i, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0]
    if len(starts) < 2 or text.count("\\[") != text.count("\\]") or text.count("$$") % 2:
        return 0
    return starts[-1]
