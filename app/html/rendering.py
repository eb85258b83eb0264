"""Renders what people and models write as safe HTML that shows every character.

Answers are Markdown; all else is text as it was typed. Tags, scripts, styles and forms are text,
and images are links: the HTML holds nothing that a browser runs or fetches. Formulas are MathML.

Knows HTML; knows nothing of pages, widgets and conversations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib import resources
from typing import Any

from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

from app.html.formulas import formula_html
from app.html.markdown import PARSER, NotMarkdown, parse

# Languages with a safe Pygments lexer: the regular expressions of some others can hang
HIGHLIGHTED = frozenset(
    (
        "bash",
        "c",
        "c++",
        "console",
        "cpp",
        "css",
        "diff",
        "go",
        "html",
        "ini",
        "java",
        "javascript",
        "js",
        "json",
        "jsx",
        "kotlin",
        "lua",
        "makefile",
        "php",
        "py",
        "python",
        "r",
        "rb",
        "ruby",
        "rs",
        "rust",
        "sh",
        "shell",
        "sql",
        "swift",
        "toml",
        "ts",
        "tsx",
        "typescript",
        "xml",
        "yaml",
        "yml",
    )
)
COLOURING_SECONDS = 0.1  # after that a block stays uncoloured
COPY_CODE = (  # the page's script listens to this class; the second element is "copied"
    '<button title="copy" class="copy_code_button"><span class="copy"></span>'
    '<span class="check"></span></button>'
)


@lru_cache(maxsize=256)  # a page asks for its earlier answers again
def answer_html(text: str) -> str:
    """Return the HTML of Markdown that a model or a person wrote."""
    try:
        return wrapped(blocks_html(parse(text)))
    except NotMarkdown:
        return plain_html(text)


def blocks_html(tokens: Sequence[Token]) -> str:
    """Return the HTML of whole Markdown blocks, without the enclosing element."""
    return str(SafeHtmlRenderer().render(tokens, PARSER.options, {}))


def wrapped(html: str) -> str:
    """Return blocks within the element that contains the whole message."""
    return f'<div class="rendered" dir="auto">{html}</div>'


def plain_html(text: str) -> str:
    """Return the HTML of a text that is shown as it was typed."""
    # A browser drops one line break after <pre>
    return wrapped(f'<pre class="typed">\n{escape(text, quote=False)}</pre>')


@lru_cache(maxsize=1)
def stylesheet() -> str:
    """Return the CSS of this module's HTML, with code colours for light and dark pages."""
    own = resources.files("app.html").joinpath("rendering.css").read_text("utf-8")
    light = _colours("xcode", ".rendered .coloured")
    dark = _colours("github-dark", ".dark .rendered .coloured")
    return f"{own}\n{light}\n{dark}"


class SafeHtmlRenderer(RendererHTML):
    """Renders tokens as HTML."""

    def text(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """Escaped text."""
        return escape(tokens[idx].content, quote=False)

    def softbreak(self, *_: Any) -> str:
        """A line break, as typed."""
        return "<br>"

    hardbreak = softbreak  # type: ignore[assignment]  # the parent names its arguments

    def math(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """A formula as MathML."""
        html = formula_html(tokens[idx].content, block=tokens[idx].block)
        if tokens[idx].block:
            return f'<div class="math" tabindex="0">{html}</div>'
        return f'<span class="math">{html}</span>'

    def fence(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """A code block under the words beside its fence, coloured if the language is known."""
        code, about = tokens[idx].content, tokens[idx].info.strip()
        caption = f"<figcaption>{escape(about, quote=False)}</figcaption>" if about else ""
        language = about.split()[0].lower() if about else ""
        return (
            f'<figure class="code">{caption}<div class="code_wrap">{COPY_CODE}'
            f'<pre tabindex="0"><code class="coloured">{_coloured(code, language)}</code></pre>'
            "</div></figure>"
        )

    code_block = fence  # type: ignore[assignment]

    def code_inline(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """Inline code."""
        return f"<code>{escape(tokens[idx].content, quote=False)}</code>"

    def link_open(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """A link that opens in a new tab without a referrer."""
        href, title = (escape(str(tokens[idx].attrs.get(name, ""))) for name in ("href", "title"))
        shown = f' title="{title}"' if title else ""
        return f'<a href="{href}"{shown} target="_blank" rel="noopener noreferrer">'

    def table_open(self, *_: Any) -> str:
        """A table that can be scrolled with the keyboard if it is wider than the page."""
        return '<table tabindex="0">\n'

    def th_open(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        """A table cell, aligned by a class, since messages have no inline styles."""
        token = tokens[idx]
        side = str(token.attrs.get("style", "")).removeprefix("text-align:")
        return f'<{token.tag} class="{side}">' if side else f"<{token.tag}>"

    td_open = th_open


@lru_cache(maxsize=256)
def _coloured(code: str, language: str) -> str:
    """Return coloured code, if its language is known and its lexer is fast and lossless."""
    plain = escape(code, quote=False)
    if language not in HIGHLIGHTED:
        return plain
    deadline, pieces, left = time.thread_time() + COLOURING_SECONDS, [], len(code)
    for kind, words in get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(code):
        if time.thread_time() > deadline:
            return plain
        pieces.append(_coloured_token(kind, words))
        left -= len(words)
    return plain if left else "".join(pieces)


def _coloured_token(kind: Any, words: str) -> str:
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    name, html = STANDARD_TYPES[kind], escape(words, quote=False)
    return f'<span class="{name}">{html}</span>' if name else html


def _colours(style: str, selector: str) -> str:
    """Return a Pygments style as CSS, without its rules for whole pages."""
    rules: str = HtmlFormatter(style=style).get_style_defs(selector)
    return "\n".join(rule for rule in rules.splitlines() if rule.startswith(f"{selector} ."))
