"""Text as HTML: all of it is there, and nothing of it does anything."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.html.formulas import ATTRIBUTES as OF_FORMULAS
from app.html.rendering import HIGHLIGHTED, answer_html, plain_html, stylesheet

TAGS = {
    "a",
    "blockquote",
    "br",
    "button",
    "code",
    "div",
    "em",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
    "wbr",
}
ATTRIBUTES = {"class", "dir", "href", "rel", "start", "tabindex", "target", "title", "value"}
FORMULAS = OF_FORMULAS | {"alttext"}
GENERICS = "Use vector<int> or Map<String, List<T>> and <restate here>. If a<b and c>d then x."


class Seen(HTMLParser):
    """What a browser shows of HTML, and what it is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.classes: list[tuple[str, str]] = []  # of an element, with the text in it
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "br":
            self.text += "\n"
        elif tag != "wbr":
            self.open.append(str(dict(attrs).get("class", tag)))

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open:
            self.classes.append((self.open[-1], data))

    def inside(self, name: str) -> str:
        """The text in elements of a class, or without one of a tag."""
        return "".join(data for found, data in self.classes if found == name)


def seen(text: str) -> str:
    """What is shown of an answer, less the layout's white space around it."""
    return Seen(answer_html(text)).text.strip()


@pytest.mark.parametrize(
    "text",
    [
        GENERICS,
        "<test>\nline after",
        "<note><to>Tove</to></note>",
        "<div>\n<script>alert(1)</script>\n</div>",
        "<!-- a --> <?b?> <![CDATA[c]]> <!DOCTYPE d>",
        "&lt;b&gt; &amp; &nbsp; &#65; &copy",
        "$5 and $10",
        "$$ or $$$ a night",
        "C:\\(new) \\\\server\\share \\d+\\.txt \\",
        "a \\\nb",
        "#",
        "[note]: see",
        "[x](javascript:alert(1)) [y](data:text/html,z) [z](/console) [](x)",
        "![x](data:image/png;base64,AAAA) ![](file:///etc/passwd)",
        "> " * 100 + "deep",
        "[" * 5_000 + "brackets",
    ],
)
def test_what_is_no_markdown_is_shown_as_typed(text: str) -> None:
    assert seen(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**b** *i* ~~s~~ `c`", "b i s c"),
        (r"\*no list\* and snake\_case and \$5", "*no list* and snake_case and $5"),
        ("`&lt;` and `a<b>`", "&lt; and a<b>"),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 | 4 |", "a\nb\n\n\n\n\n1\n2 | 3 | 4"),
        ("[](http://x.test/y)", "http://x.test/y"),
        ("![](http://x.test/y.png)", "🖼 x.test"),
        ("![cat](http://u:p@x.test/y.png)", "🖼 cat (x.test)"),
        ("[![cat](http://x.test/y.png)](http://z.test)", "🖼 cat (http://x.test/y.png)"),
    ],
)
def test_markdown_leaves_its_words(text: str, shown: str) -> None:
    assert re.sub(r"\n+", "\n", seen(text)) == re.sub(r"\n+", "\n", shown)


def test_numbers_of_a_list_stay_as_typed() -> None:
    assert '<ol start="3">\n<li>x</li>\n<li value="7">y</li>\n<li>z</li>' in answer_html(
        "3. x\n7. y\n8. z"
    )
    assert "value" not in answer_html("1. x\n1. y\n1. z")  # counted by whoever shows it


@pytest.mark.parametrize(
    "formula",
    [
        r"\( a_1 * b * c \)",
        r"\[ \frac{1}{2} < 1 \]",
        "$$E=mc^2$$",
        "\\[\na\n- b\n\n= c\n\\]",
        "$$\n\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}\n$$",
    ],
)
def test_a_formula_is_set_and_kept_as_it_was_written(formula: str) -> None:
    page = Seen(answer_html(f"Before\n\n{formula}\n\nafter"))
    assert [value for name, value in page.attributes if name == "alttext"] == [formula]
    assert "math" in page.tags


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("let $x$ be $a_1 + b$, the $n$-th", ["$x$", "$a_1 + b$", "$n$"]),
        ("$E = mc^2$ and $\\alpha$", ["$E = mc^2$", "$\\alpha$"]),
        ("It costs $5 and $10, or 5$ or 6$.", []),
        ("US$5-$10 and $or$ and $100$", []),
        (r"`\(x\)` `$x$`", []),
        ("```\n$$x$$\n\\[ y \\]\n```", []),
        (r"\(x and no end", []),
        ("$$ or $$$", []),
        (r"\\(x\\)", []),
    ],
)
def test_what_is_a_formula_and_what_is_money_words_or_code(text: str, formulas: list[str]) -> None:
    page = Seen(answer_html(text))
    assert [value for name, value in page.attributes if name == "alttext"] == formulas


@pytest.mark.parametrize(
    "formula",
    [r"\(\href{javascript:alert(1)}{x}\)", r"\(\style{color:red}{x}\)", r"\(\class{window}{x}\)"],
)
def test_a_formula_does_nothing_but_stand_there(formula: str) -> None:
    page = Seen(answer_html(formula))
    assert {name for name, _ in page.attributes} <= {"class", "dir", "display", "alttext"}
    assert [v for n, v in page.attributes if n == "class"] == ["rendered", "math"]


def test_what_is_no_tex_is_shown_as_it_was_written() -> None:
    assert seen(r"\(\frac{\)") == r"\(\frac{\)"


@pytest.mark.parametrize("language", sorted(HIGHLIGHTED))
def test_code_is_shown_to_the_letter(language: str) -> None:
    code = "\n\n  if (a<b && c>d) {\t\"x\" 'y' `z` & &amp; </code>\n\n#!/bin/sh $x \\n 你好\n\n\n"
    html = answer_html(f"````{language} title\n{code}````")
    shown = re.search(r"<code[^>]*>(.*)</code>", html, re.DOTALL)
    assert shown
    assert Seen(shown[1]).text == code
    assert Seen(html).inside("figcaption") == f"{language} title"


def test_a_known_language_is_coloured_and_the_colours_are_in_the_stylesheet() -> None:
    assert '<span class="kt">int</span>' in answer_html("```cpp\nint a;\n```")
    assert '<code class="coloured">+++\n</code>' in answer_html("```brainfuck\n+++\n```")
    for theme in ("", ".dark "):
        assert f"\n{theme}.rendered .coloured .kt {{" in stylesheet()


@pytest.mark.parametrize(
    "address", ["https://a.test/b_c?d=e&f=g", "http://en.test/Foo_(bar)", "https://x.test"]
)
def test_a_bare_address_is_a_link(address: str) -> None:
    attributes = dict(Seen(answer_html(f"See {address}. 见{address}。")).attributes)
    assert attributes["href"] == address
    assert attributes["rel"] == "noopener noreferrer"
    assert attributes["target"] == "_blank"


def test_a_question_is_shown_as_typed_and_is_no_markdown() -> None:
    text = "\n  **no** `code` \\(x\\)\n\n\n<b>\t&amp; 1. "
    html = plain_html(text)
    assert Seen(html).tags == {"div", "pre"}
    assert Seen(html).text == "\n" + text  # a browser drops the first line break in <pre>


@pytest.mark.parametrize("end", range(1, 60))
def test_an_answer_that_is_half_written_shows_all_there_is_of_it(end: int) -> None:
    written = "Look:\n```cpp\nif (a<b) {}\n```\nand `c<d>` or <e>."[:end]
    without = re.compile(r"[`\s]|cpp?$")  # a fence and its language may be incomplete
    assert without.sub("", seen(written)) == without.sub("", written)


MARKS = (
    "<b>",
    "</b>",
    "<script>",
    "<img/src=x>",
    "<!--",
    "-->",
    "&lt;",
    "&amp;",
    "&",
    "<",
    ">",
    "`",
    "```",
    "```cpp",
    "~~~",
    "*",
    "**",
    "_",
    "__",
    "~~",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\",
    "#",
    "##",
    "-",
    "+",
    "1.",
    "7)",
    "|",
    "|-|-|",
    "[",
    "]",
    "(",
    ")",
    "![",
    "](http://x.test)",
    "](javascript:y)",
    "<http://z.test>",
    "http://q.test/r",
    "[k]:",
    "\n",
    "\n\n",
    "\t",
    "    ",
)
PIECES = st.one_of(st.sampled_from(MARKS), st.from_regex(r"[a-zA-Z0-9é你]{1,6}", fullmatch=True))


@pytest.mark.parametrize(("language", "code"), [("java", "\n" * 20_000), ("tsx", "a." * 10_000)])
def test_code_that_is_slow_to_colour_is_left_as_it_is(language: str, code: str) -> None:
    begun = time.thread_time()
    answer_html(f"```{language}\n{code}\n```")
    assert time.thread_time() - begun < 1  # 40 s, where the lexer has all its time


@pytest.mark.parametrize("mark", ["[", "![", "[]("])
def test_brackets_without_end_are_not_parsed_for_seconds(mark: str) -> None:
    begun = time.thread_time()
    assert seen(mark * 10_000) == mark * 10_000
    assert time.thread_time() - begun < 1


@pytest.mark.integration
@given(st.lists(PIECES, max_size=40).map(" ".join) | st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=150, deadline=None)
def test_nothing_that_was_typed_is_lost_and_nothing_that_is_made_acts(text: str) -> None:
    page = Seen(answer_html(text))
    assert {tag for tag in page.tags if not tag.startswith("m")} <= TAGS  # MathML's begin with m
    attributes = [(name, str(value)) for name, value in page.attributes]
    assert {name for name, _ in attributes} <= ATTRIBUTES | FORMULAS
    addresses = [value for name, value in attributes if name == "href"]
    assert all(re.match(r"https?://|mailto:", address) for address in addresses)
    # Words and tags, in whatever of it they are seen; a list's number is its mark
    kept = page.text + " ".join(value for _, value in attributes)
    for word in re.findall(r"[a-zA-Zé你]+", text):
        assert word in kept, word
    assert text.count("<script>") == page.text.count("<script>")
    assert text.count("&lt;") <= kept.count("&lt;")
