"""The page "My feedback" in a real Chromium: what became of it, consent, one's data, examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from feedback_store.examples.split import split_of
from tests.app.browser.feedback_page import FeedbackPage
from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import rows, wait_until_said
from tests.helpers import make_bundle
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
Newcomer = Callable[..., ChatPage]
PHONE: Any = {"width": 390, "height": 844}
OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"


@pytest.fixture
def chat(newcomer: Newcomer, played: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatPage]:
    """The chat page of a new person; every conversation is on the training side."""
    ids = (f"{number:032x}" for number in range(1_000_000))
    trained_on = (each for each in ids if split_of(each) == "train")
    taken = {row["id"] for row in rows(played.service, "SELECT id FROM conversations")}
    monkeypatch.setattr(
        "app.web.chat.answers_api.new_id",
        lambda: next(each for each in trained_on if each not in taken),
    )
    played.engine.says = "Quite tall."
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


@pytest.fixture
def mine(chat: ChatPage) -> FeedbackPage:
    return FeedbackPage(chat)


def released(played: Played) -> str:
    """A snapshot of now, and a release trained on it that is live; returns its short name."""
    workspace = played.service.workspace
    manifest = {"snapshot": workspace.take_snapshot()}
    seed = len(workspace.registry.list())
    bundle = make_bundle(workspace.home.bundles, workspace.base, seed, manifest=manifest)
    workspace.registry.add(bundle, {"verdict": "better"})
    workspace.registry.promote(bundle, workspace.registry.live())
    wait_until(lambda: played.service.slots.live == bundle)
    return bundle[7:19]


def test_who_has_said_nothing_is_told_how_to_begin(mine: FeedbackPage) -> None:
    mine.open()
    expect(mine.summary).to_contain_text("A thumb under any answer is enough.")
    expect(mine.statements).to_have_count(0)
    expect(mine.page.locator("#my-consent")).to_be_visible()


def test_a_thumb_shows_with_its_example_and_leads_to_its_conversation(
    chat: ChatPage, mine: FeedbackPage
) -> None:
    chat.ask(OAK)
    chat.thumb("up")
    chat.why("right_facts", comment="As I learnt it.")
    conversation = chat.conversation
    mine.open()
    expect(mine.summary).to_have_text("You have said one thing · 1 in the training data")
    expect(mine.statements).to_have_count(1)
    expect(mine.statements).to_contain_text("Good answer · Facts are right · “As I learnt it.”")
    expect(mine.became()).to_have_text(
        "In the training data: an answer judged good; an answer to imitate."
    )
    expect(mine.lineage()).to_have_count(0)
    mine.does("texts").click()
    expect(mine.sides()).to_contain_text("Quite tall.")
    mine.statements.get_by_role("link", name=OAK).click()
    expect(chat.turns).to_have_count(1)
    assert chat.conversation == conversation
    expect(chat.question_box).to_be_visible()


def test_reload_back_and_forward_lead_to_it(chat: ChatPage, mine: FeedbackPage) -> None:
    chat.ask(OAK)
    mine.open()
    assert chat.page.url.endswith("?view=feedback")
    expect(chat.page.locator("h1")).to_have_text("My feedback")
    expect(chat.page.locator("#my-feedback")).to_have_attribute("aria-current", "page")
    expect(chat.question_box).to_be_hidden()
    chat.reload()
    mine.wait_until_drawn()
    chat.page.go_back()
    expect(chat.turns).to_have_count(1)
    expect(chat.page.locator("#my-feedback")).to_have_attribute("aria-current", "false")
    chat.page.go_forward()
    mine.wait_until_drawn()


def test_a_correction_that_trained_names_its_release_which_answers_again(
    chat: ChatPage, mine: FeedbackPage, played: Played
) -> None:
    chat.ask(OAK)
    chat.improve("An oak is 30 m tall.")
    release = released(played)
    stored = played.service.workspace.store.counts()
    mine.open()
    expect(mine.summary).to_contain_text(f"1 learnt by the live release {release}")
    expect(mine.statements).to_contain_text("Your correction: An oak is 30 m tall.")
    expect(mine.became()).to_contain_text("a pair, the better answer before the worse")
    expect(mine.lineage()).to_have_text(
        re.compile(rf"^First frozen in snapshot \w{{12}}\. Learnt by release {release}, which is")
    )
    played.engine.says = "Thirty metres."
    mine.does("now").click()
    expect(mine.sides()).to_have_text(
        [re.compile("Then: Base model.*Quite tall"), re.compile(f"Now: {release}.*Thirty metres")]
    )
    (asked,) = played.engine.requests[-1].messages[-1:]
    assert asked.content == OAK
    assert played.service.workspace.store.counts() == stored


def test_without_consent_it_waits_and_with_it_it_teaches(
    chat: ChatPage, mine: FeedbackPage, played: Played
) -> None:
    chat.ask(OAK)
    chat.thumb("down")
    wait_until_said(played.service, chat.answer_id(), "vote")
    mine.open()
    expect(mine.became()).to_contain_text("In the training data")
    mine.consent(False)
    expect(mine.became()).to_contain_text("Waiting: without your consent")
    expect(mine.summary).to_have_text("You have said one thing · 1 waiting for your consent")
    chat.reload()
    mine.wait_until_drawn()
    expect(chat.page.locator("#my-consent")).not_to_be_checked()
    mine.consent(True)
    expect(mine.became()).to_contain_text("In the training data")


def test_all_ones_data_comes_in_a_file(chat: ChatPage, mine: FeedbackPage, tmp_path: Path) -> None:
    chat.ask(OAK)
    chat.improve("An oak is 30 m tall.")
    data = mine.open().download(tmp_path)
    (conversation,) = data["conversations"]
    assert conversation["id"] != ""
    assert [turn["question"] for turn in conversation["turns"]] == [OAK]
    assert [each["correction"] for each in data["statements"]] == ["An oak is 30 m tall."]


def test_forget_me_leaves_nothing_and_the_page_is_a_new_persons(
    chat: ChatPage, mine: FeedbackPage, played: Played
) -> None:
    question = "What do I alone want to know?"
    chat.ask(question)
    chat.improve("It grows to a hundred feet.")  # nobody else says so: no duplicate
    release = released(played)
    chat.question_box.fill("What else I wanted to ask")
    mine.open().forget_me()
    expect(chat.toast.last).to_contain_text("Conversations deleted: 1. Releases deleted: 1.")
    expect(chat.conversations).to_have_count(0)
    expect(chat.turns).to_have_count(0)
    expect(chat.question_box).to_have_value("")
    assert rows(played.service, "SELECT id FROM turns WHERE question = ?", question) == []
    assert release not in str(played.service.workspace.registry.live())
    mine.open()
    expect(mine.summary).to_contain_text("You have not said anything")
    chat.new_chat()
    chat.ask(ELM)
    chat.reload()
    expect(chat.conversations).to_have_text([ELM])


def test_an_own_example_is_removed_and_comes_back(chat: ChatPage, mine: FeedbackPage) -> None:
    chat.ask(OAK)
    chat.improve("An oak is 30 m tall.")
    mine.open()
    expect(mine.open_examples()).to_have_count(1)
    expect(mine.examples).to_contain_text("your correction: An oak is 30 m tall.")
    mine.remove_example()
    expect(mine.examples).to_have_class(re.compile("removed"))
    chat.toast.last.get_by_role("button", name="Undo").click()
    expect(mine.examples).not_to_have_class(re.compile("removed"))
    mine.remove_example()
    expect(chat.toast.last).to_have_text(re.compile("not shown as an example any more"))
    chat.reload()
    mine.wait_until_drawn()
    mine.page.locator("#own-examples summary").click()
    expect(mine.page.locator("#own-examples")).to_contain_text("None so far")


def test_an_answers_details_show_the_examples_in_view_and_one_can_be_removed(
    chat: ChatPage, mine: FeedbackPage
) -> None:
    chat.ask(OAK)
    chat.improve("An oak is 30 m tall.")
    chat.new_chat()
    chat.ask(ELM)
    chat.does("details").click()
    expect(mine.examples).to_have_count(1)
    expect(mine.examples).to_contain_text(OAK)
    mine.remove_example()
    expect(mine.examples).to_have_class(re.compile("removed"))
    chat.page.keyboard.press("Escape")
    chat.new_chat()
    chat.ask(ELM)
    chat.does("details").click()
    expect(chat.page.locator("dialog")).to_contain_text("Examples shown")
    expect(mine.examples).to_have_count(0)


def test_on_a_phone_nothing_is_wider_than_the_screen(
    chat: ChatPage, mine: FeedbackPage, played: Played
) -> None:
    played.engine.says = f"```\n{'x' * 300}\n```\n\n{'y' * 300}"
    chat.ask("z" * 200)
    chat.thumb("up")
    wait_until_said(played.service, chat.answer_id(), "vote")
    released(played)
    mine.open().decide()
    mine.open_examples()
    chat.page.set_viewport_size(PHONE)
    mine.does("now").click()
    expect(mine.sides()).to_have_count(2)
    expect(mine.does("now")).to_be_enabled()
    assert chat.page.evaluate("document.getElementById('scroller').scrollWidth") <= PHONE["width"]
    side, below = (mine.sides().nth(place).bounding_box() for place in (0, 1))
    assert side is not None
    assert below is not None
    assert below["y"] > side["y"]


def test_a_chinese_browser_gets_it_without_an_english_word(
    newcomer: Newcomer, played: Played
) -> None:
    played.engine.says = "很高。"
    chat = newcomer(played.url, locale="zh-CN")
    chat.ask("橡树有多高？")
    chat.thumb("down")
    chat.why("too_long")
    mine = FeedbackPage(chat).open().decide()
    mine.open_examples()
    mine.does("texts").click()
    expect(mine.sides()).to_have_count(1)
    mine.page.click("#forget")
    names = chat.page.evaluate(
        "() => [...document.querySelectorAll('#burnish [aria-label], #burnish [title]')]"
        ".flatMap(e => [e.ariaLabel, e.title]).filter(Boolean).join('\\n')"
    )
    shown = chat.page.locator("#burnish").inner_text()
    words = re.sub(r"[0-9a-f]{12}", "", f"{shown}\n{names}")  # but for a release's name
    assert set(re.findall(r"[A-Za-z]{2,}", words)) <= {"Burnish", "JSON"}


def test_the_keyboard_alone_reaches_everything(chat: ChatPage, mine: FeedbackPage) -> None:
    chat.ask(OAK)
    chat.thumb("up")
    chat.tab_to("my-feedback")
    chat.page.keyboard.press("Enter")
    mine.wait_until_drawn()
    chat.page.locator("#my-decisions summary").focus()
    chat.page.keyboard.press("Enter")
    chat.tab_to("my-consent")
    chat.page.keyboard.press("Space")
    expect(mine.became()).to_contain_text("Waiting")
    chat.tab_to("texts")
    chat.page.keyboard.press("Enter")
    expect(mine.sides()).to_contain_text("Quite tall.")
    nameless = chat.page.evaluate(
        "() => [...document.querySelectorAll('#burnish button, #burnish input, #burnish a')]"
        ".filter(e => !(e.ariaLabel || e.textContent.trim() ||"
        " e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
