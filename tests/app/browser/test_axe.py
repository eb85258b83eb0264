"""axe-core finds nothing serious on any page, in each state that a person meets.

It checks what a program can check of WCAG 2: names, roles, contrast, headings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import wait_until_said
from tests.helpers import make_bundle

pytestmark = NEEDS_CHROMIUM
SERIOUS = ("serious", "critical")
# Each look with what makes it one: every state has to hold in all of them
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "dark phone, Chinese": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "color_scheme": "dark",
        "locale": "zh-CN",
    },
}
RICH = """# Tides

The **moon** pulls [water](https://example.org), see `sea`:

| Day | Tides |
|---|---|
| 1 | 2 |

```python
print("ebb")  # a comment
```

$$x^2$$
"""


# A table that gradio draws; browsers let the keyboard scroll it, as axe does not know
GRADIO_TABLE = [".virtual-table-viewport"]


def serious(page: Page) -> list[str]:
    """What axe finds: the rule, and where."""
    found = Axe().run(page, context={"exclude": [GRADIO_TABLE]}).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in SERIOUS
    ]


@pytest.mark.parametrize(
    "look", [pytest.param("desktop", marks=pytest.mark.slow), "dark phone, Chinese"]
)
def test_nothing_serious_is_found_on_the_chat_page(
    look: str, newcomer: Callable[..., ChatPage], played: Played
) -> None:
    chat = newcomer(played.url, **LOOKS[look])
    assert serious(chat.page) == []  # empty

    played.engine.says = f"<think>It is the moon.</think>{RICH}"
    chat.ask("Why are there tides?")
    chat.again()
    chat.thumb("down")
    assert serious(chat.page) == []  # an answer with its siblings, and reasons for a thumb

    chat.does("details").click()
    assert serious(chat.page) == []
    chat.page.keyboard.press("Escape")

    chat.does("improve").click()
    expect(chat.page.locator("#correction")).to_be_visible()
    assert serious(chat.page) == []
    chat.page.fill("#correction", "The moon pulls.")
    chat.page.click("#save-correction")
    expect(chat.page.locator(".corrected")).to_be_visible()
    assert serious(chat.page) == []  # a correction with what it changed

    chat.does("change").click()
    assert serious(chat.page) == []
    chat.compare()
    assert serious(chat.page) == []
    chat.page.keyboard.press("Escape")

    chat.page.click("#open-advanced")
    if chat.page.locator("#open-side").is_visible():
        chat.page.click("#open-side")
    assert serious(chat.page) == []  # the side bar, the advanced drawer
    chat.page.click("#settings")
    expect(chat.page.locator("dialog[open]")).to_be_visible()
    assert serious(chat.page) == []


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_serious_is_found_on_the_console(
    look: str, newcomer: Callable[..., ChatPage], played: Played
) -> None:
    chat = newcomer(played.url, **LOOKS[look])
    played.engine.says = "It is the sun."
    chat.ask("Why are there tides?")
    chat.thumb("down")
    wait_until_said(played.service, chat.answer_id(), "vote")
    workspace = played.service.workspace
    bundle = make_bundle(workspace.home.bundles, workspace.base, seed=len(look))
    gain = {"estimate": 0.1, "low": 0.02, "high": 0.18}
    report = {"verdict": "better", "gain": gain, "incumbent_accuracy": 0.5}
    report |= {"candidate_accuracy": 0.6, "pairs": 9}
    workspace.registry.add(bundle, report)
    workspace.canaries.start_by("console", bundle)
    page = chat.page
    page.goto(f"{played.url}/console/")
    expect(page.locator("#desk .needs a").first).to_be_visible(timeout=30_000)
    expect(page.locator("#lineage")).to_contain_text(bundle[7:13])
    expect(page.locator("#canary-status .arm").first).to_be_visible()
    assert serious(page) == []  # the desk with a canary, a plot, and a lineage
    page.get_by_role("tab").nth(1).click()
    expect(page.locator("#gains svg").first).to_be_visible(timeout=20_000)
    assert serious(page) == []  # the gains and the story of a release
    workspace.canaries.stop("console")
    page.goto(f"{played.url}/console/inbox")
    page.locator("summary").first.click()
    expect(page.locator("details button").first).to_be_visible()
    assert serious(page) == []  # the inbox with an open answer
    page.goto(f"{played.url}/console/people")
    expect(page.locator("main")).to_contain_text("BURNISH_ACCOUNTS")
    assert serious(page) == []
