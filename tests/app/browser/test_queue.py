"""The console's queue of comparisons, judged by keys alone, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from app.service import Service
from app.web.auth.identity import new_user
from feedback_store.ai_feedback.alternatives import Alternative, ChosenCouple
from feedback_store.records import OPERATOR
from tests.app.browser.test_axe import LOOKS, serious
from tests.app.chat_page import PATIENCE_MS, ChatPage, open_queue
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import rows
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM


def wait_to_be_compared(played: Played, count: int, user: str | None = None) -> list[str]:
    """Bad answers whose alternatives wait; the questions, in the order in which they are asked."""
    workspace, questions = played.service.workspace, []
    for number in range(count):
        asker = user or new_user()
        played.engine.says = "Bad."
        question = f"Question {number}?"
        *_, last = played.service.chat.ask(asker, question, conversation_id=new_user())
        assert last.answer_id is not None
        workspace.store.vote(last.answer_id, asker, -1)
        texts = [f"**First** answer to {number}.", f"Second answer to {number}."]
        workspace.alternatives.store(
            workspace.alternatives.wanted(1)[0],
            [Alternative(text, "", True, 0, number - 100.0, 3, 3) for text in texts],
            ChosenCouple(0, 1, 0.5),
            base_digest="sha256:base",
            adapter_digest=None,
            sampling={},
        )
        questions.append(question)
    return questions


@pytest.fixture
def waiting(played: Played) -> Iterator[list[str]]:
    """Six comparisons that wait; none is left behind."""
    yield wait_to_be_compared(played, 6)
    forget_waiting(played.service)


def forget_waiting(service: Service) -> None:
    for each in service.workspace.comparison_queue.waiting(100):
        service.workspace.comparison_queue.skip(each.id)


@pytest.fixture
def page(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    chat = newcomer(played.url)
    yield chat
    assert chat.complaints == []


def judged(service: Service) -> list[tuple[str, str | None]]:
    """Question and choice of what is settled, in the order of the questions."""
    query = (
        "SELECT question, (SELECT choice FROM events e WHERE e.comparison_id = w.comparison_id"
        " ORDER BY e.id DESC LIMIT 1) AS choice FROM waiting_comparisons w"
        " JOIN turns ON turns.id = w.turn_id WHERE outcome IS NOT NULL ORDER BY question"
    )
    return [(row["question"], row["choice"]) for row in rows(service, query)]


def test_six_are_judged_by_keys_alone(page: ChatPage, played: Played, waiting: list[str]) -> None:
    opened, service = open_queue(page, "compare"), played.service
    asked = opened.locator("#asked")
    expect(asked).to_have_text(waiting[0])
    expect(opened.locator(".side-by-side strong")).to_have_text("First")  # as Markdown
    for key, following in zip("1234s", waiting[1:], strict=True):
        opened.keyboard.press(key)
        # The next one is on the page already: no request is waited for
        assert asked.inner_text() == following
    expect(opened.locator("#progress")).to_have_text("5 done, 1 waiting")
    opened.keyboard.press("u")
    expect(asked).to_have_text(waiting[4])
    opened.keyboard.press("u")
    expect(asked).to_have_text(waiting[3])
    for key in "2s1":
        opened.keyboard.press(key)
    expect(opened.locator("#nothing")).to_be_visible()
    assert opened.locator(".choices").is_hidden()
    expected = list(zip(waiting, ["left", "right", "tie", "right", None, "left"], strict=True))
    wait_until(lambda: judged(service) == expected)
    query = "SELECT DISTINCT user_id FROM comparisons"
    assert [row["user_id"] for row in rows(service, query)] == [OPERATOR]
    assert service.workspace.comparison_queue.counts()["waiting"] == 0


def test_an_empty_queue_says_where_comparisons_come_from(page: ChatPage, played: Played) -> None:
    opened = open_queue(page, "compare")
    expect(opened.locator("#nothing")).to_contain_text("thumb down")
    opened.keyboard.press("1")  # there is nothing to judge
    (question,) = wait_to_be_compared(played, 1)
    opened.get_by_role("button", name="Look again").click()
    expect(opened.locator("#asked")).to_have_text(question)
    forget_waiting(played.service)
    opened.keyboard.press("1")
    expect(opened.locator(".toast")).to_contain_text("meanwhile")
    page.complaints.clear()  # the browser reports the refusal


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious_in_the_queue(
    newcomer: Callable[..., ChatPage], played: Played, waiting: list[str], look: str
) -> None:
    opened = open_queue(newcomer(played.url, **LOOKS[look]), "compare")
    assert serious(opened) == []
    width = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0  # nothing is cut off at the side
    forget_waiting(played.service)
    opened.reload()
    expect(opened.locator("#nothing")).to_be_visible(timeout=PATIENCE_MS)
    assert serious(opened) == []


def test_the_chat_offers_a_persons_own_and_stores_the_choice(
    page: ChatPage, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.open()
    user = page.page.request.get(f"{page.url}/chat/person/data").json()["person"]
    (question,) = wait_to_be_compared(played, 1, user)
    wait_to_be_compared(played, 1)  # another person's, which is never shown
    comparisons = played.service.comparisons
    monkeypatch.setattr(comparisons, "_rate", 0.5)
    monkeypatch.setattr(comparisons, "_draw", lambda: 0.0)
    played.engine.says = "Yes."
    page.ask("Shall we?")
    offer = page.page.locator("#offer")
    expect(offer).to_contain_text("got a thumb down")
    offer.get_by_role("button", name="Compare the two").click()
    panel = page.page.locator("#compare-panel")
    expect(panel.locator(".question")).to_have_text(question)
    page.page.keyboard.press("2")
    expect(page.toast).to_have_text("Thank you.")
    assert (question, "right") in judged(played.service)
    expect(page.answers).to_have_text("Yes.")  # the conversation is as it was
    page.ask("And now?")
    expect(page.page.locator("#offer")).to_have_count(0)  # never twice in a row
    forget_waiting(played.service)
