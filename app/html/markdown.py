"""Parses Markdown into tokens without losing a character that was typed.

The dialect is CommonMark with tables and strikethrough, without the rules that hide text: tags,
entities and reference definitions are plain text, and a backslash stays unless it escapes a mark.
It adds mathematics in TeX delimiters and links for bare web addresses. Images become links.

Knows Markdown; knows nothing of HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, heading, table
from markdown_it.rules_block.table import escapedSplit, getLine
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

MATH_DELIMITERS = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"))
DISPLAYED = ("\\[", "$$")  # on a line of their own
MAX_MARKDOWN_CHARS = 50_000
MAX_BRACKETS = 2_000  # the parser's time grows with their square
MAX_NESTING = 40  # of quotes and lists; what lies deeper is not parsed
MAX_FORMULA_LINES = 30
ESCAPABLE = frozenset("`*_[]~|#<>$")
LINK = re.compile(r"(?:https?://|mailto:)(?:[^\s/?#]*@)?(?P<host>[^\s/?#]+)", re.IGNORECASE)
BARE_ADDRESS = re.compile(
    r"\bhttps?://\w(?:[\w\-.~:/?#@!$&'*+,;=%]|\(\w*\))*(?<![.:?!'*,;])", re.ASCII | re.IGNORECASE
)
# Single dollars follow Pandoc's rule (manual, tex_math_dollars), except for sums of money, as in
# "$5 and $10" and "5$ or 6$"
DOLLARS = re.compile(r"\$(?=\S)(?P<formula>(?:[^$\\\n]|\\.)+?)(?<=\S)\$(?!\d)")
TEX_COMMAND = re.compile(r"\\[A-Za-z]+(?:\{[^}]*\})?")
TEX_MARKS = frozenset("\\^_=")
# Tells "$$x^2$$" from "between $$ and $$$ a night"
LOOKS_LIKE_MATH = re.compile(r"\S|\S.*\S|.*[\\^_=].*", re.DOTALL)


class NotMarkdown(Exception):
    """The text is too long, too deeply nested or too full of brackets to be read as Markdown."""


def parse(text: str) -> list[Token]:
    """Return the tokens of a text; raises `NotMarkdown` if parsing would be slow or lose text."""
    if len(text) > MAX_MARKDOWN_CHARS or text.count("[") > MAX_BRACKETS:
        raise NotMarkdown
    tokens = PARSER.parse(text)
    if any(token.level >= MAX_NESTING - 1 for token in tokens):  # the parser drops what is deeper
        raise NotMarkdown
    return tokens


class _Markdown(MarkdownIt):
    """A parser that accepts only absolute links (http, https, mailto)."""

    def validateLink(self, url: str) -> bool:  # noqa: N802  # markdown-it's name
        return LINK.match(url) is not None

    def normalizeLinkText(self, link: str) -> str:  # noqa: N802
        return link


def _make_parser() -> MarkdownIt:
    parser = _Markdown("commonmark", {"html": False, "breaks": True, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    parser.disable(["reference", "entity", "html_block", "html_inline"])
    parser.inline.ruler.at("escape", _escape)
    parser.inline.ruler.before("escape", "math", _inline_math)
    parser.block.ruler.at("heading", _heading, {"alt": ["paragraph", "reference", "blockquote"]})
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before(
        "fence", "math", _block_math, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.core.ruler.push("links", _links)
    parser.core.ruler.push("numbers", _numbers)
    return parser


def _escape(state: StateInline, silent: bool) -> bool:
    """Rule: a backslash escapes a Markdown mark. Any other backslash is text, even where CommonMark
    drops it: in `C:\\(new)`, `\\\\server` or at the end of a line."""
    following = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or not (following == "\\" or following in ESCAPABLE):
        return False
    if not silent:
        token = state.push("text_special", "", 0)
        token.content = "\\\\" if following == "\\" else following
        token.markup, token.info = "\\" + following, "escape"
    state.pos += 2
    return True


def _inline_math(state: StateInline, silent: bool) -> bool:
    """Rule: a formula between delimiters within a paragraph."""
    for left, right in MATH_DELIMITERS:
        if not state.src.startswith(left, state.pos):
            continue
        begin = state.pos + len(left)
        end = state.src.find(right, begin, state.posMax)
        formula = state.src[begin:end]
        if end < 0 or not formula.strip():
            return False
        if left == "$$" and not LOOKS_LIKE_MATH.fullmatch(formula):
            return False
        if not silent:
            _push_formula(state, state.src[state.pos : end + len(right)])
        state.pos = end + len(right)
        return True
    return _dollars(state, silent)


def _dollars(state: StateInline, silent: bool) -> bool:
    """Rule: a formula between single dollars."""
    found = DOLLARS.match(state.src, state.pos, state.posMax)
    before = state.src[max(0, state.pos - 1) : state.pos]
    if found is None or before == "$" or before.isalnum():
        return False
    if not _is_formula(found["formula"]):
        return False
    if not silent:
        _push_formula(state, found[0])
    state.pos = found.end()
    return True


def _is_formula(text: str) -> bool:
    """Return whether a text between single dollars is mathematics, not words or a sum of money."""
    bare = TEX_COMMAND.sub(r"\\", text)
    longest = max(map(len, re.findall("[A-Za-z]+", bare)), default=0)
    return longest == 1 or (longest < 3 and not TEX_MARKS.isdisjoint(bare))


def _block_math(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Rule: a displayed formula on its own lines; marks of lists and rules are part of it."""
    if state.is_code_block(start):
        return False
    left = next((d for d in DISPLAYED if getLine(state, start).startswith(d)), None)
    if left is None:
        return False
    right = dict(MATH_DELIMITERS)[left]
    if right not in state.src[state.bMarks[start] + len(left) :]:
        return False
    lines: list[str] = []
    for line in range(start, min(end, start + MAX_FORMULA_LINES)):
        if line > start and not state.isEmpty(line) and state.sCount[line] < state.blkIndent:
            return False
        lines.append(getLine(state, line))
        inside = lines[-1][len(left) :] if line == start else lines[-1]
        if right not in inside:
            continue
        formula = "\n".join(lines).rstrip()
        if inside.rstrip().find(right) != len(inside.rstrip()) - len(right):
            return False  # other text follows on the line
        if not formula[len(left) : -len(right)].strip():
            return False
        if not silent:
            _push_formula(state, formula)
            state.line = line + 1
        return True
    return False


def _push_formula(state: StateInline | StateBlock, formula: str) -> None:
    token = state.push("math", "", 0)
    token.content = formula
    token.block = isinstance(state, StateBlock)


def _heading(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Rule: a heading with words; a lone "#" is text."""
    before = len(state.tokens)
    if not heading(state, start, end, silent):
        return False
    if silent or state.tokens[before + 1].content:
        return True
    del state.tokens[before:]
    state.line = start
    return False


def _table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Rule: a table whose last column takes the surplus cells that CommonMark drops."""
    before = len(state.tokens)
    if not table(state, start, end, silent):
        return False
    cells = [token for token in state.tokens[before:] if token.type == "inline"]
    columns = sum(cell.map == [start, start + 1] for cell in cells)
    for last in cells[2 * columns - 1 :: columns] if columns else ():
        assert last.map is not None
        typed = [cell.strip() for cell in escapedSplit(getLine(state, last.map[0]).strip())]
        typed = typed[1 if not typed[0] else 0 : -1 if not typed[-1] else None]
        if len(typed) > columns:
            last.content = " | ".join(typed[columns - 1 :])
    return True


def _links(state: StateCore) -> None:
    """Rule: turn bare addresses and images into links; a link without words shows its address."""
    for block in state.tokens:
        if block.type == "inline":
            block.children = list(_linked(block.children or []))


def _linked(tokens: list[Token]) -> Iterator[Token]:
    inside = 0
    for token, following in zip_longest(tokens, tokens[1:]):
        inside += token.nesting if token.type.startswith("link_") else 0
        if token.type == "image":
            yield from _image(token, inside > 0)
        elif token.type == "text" and not inside:
            yield from _addresses(token.content)
        else:
            yield token
        if token.type == "link_open" and following and following.type == "link_close":
            yield _text(str(token.attrs["href"]))


def _image(token: Token, inside_link: bool) -> Iterator[Token]:
    """Yield an image as a link, so that nothing is fetched until a person follows it."""
    source, words = str(token.attrs["src"]), token.content.strip()
    if inside_link:
        yield _text(f"🖼 {words} ({source})")
        return
    address = LINK.match(source)
    assert address is not None, "the parser took it for an address"
    host = address["host"]
    yield from _link(source, f"🖼 {words} ({host})" if words else f"🖼 {host}")


def _addresses(text: str) -> Iterator[Token]:
    rest = 0
    for found in BARE_ADDRESS.finditer(text):
        yield _text(text[rest : found.start()])
        yield from _link(found[0], found[0])
        rest = found.end()
    yield _text(text[rest:])


def _link(address: str, words: str) -> Iterator[Token]:
    yield Token("link_open", "a", 1, attrs={"href": address})
    yield _text(words)
    yield Token("link_close", "a", -1)


def _text(words: str) -> Token:
    return Token("text", "", 0, content=words)


def _numbers(state: StateCore) -> None:
    """Rule: keep the numbers of a list as typed, except that "1. 1. 1." becomes 1, 2, 3."""
    numbers: list[tuple[int, int] | None] = []  # of each open list: the last typed and shown
    for token in state.tokens:
        if token.type == "ordered_list_open":
            numbers.append(None)
        elif token.type == "ordered_list_close":
            numbers.pop()
        elif token.type == "list_item_open" and token.info:
            typed, last = int(token.info), numbers[-1]
            shown = typed if last is None or typed not in (last[0], last[1] + 1) else last[1] + 1
            if last is not None and shown != last[1] + 1:
                token.attrSet("value", str(shown))
            numbers[-1] = typed, shown


PARSER = _make_parser()
