"""Two answers side by side, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Route, expect

from tests.app.chat_page import ChatPage
from tests.app.conftest import NEEDS_CHROMIUM, Played
from tests.app.stored import rows
from tests.support.waiting import wait_until

pytestmark = NEEDS_CHROMIUM
HIDDEN = (
    "SELECT answer_id FROM alternatives JOIN answers ON answers.id = answer_id"
    " JOIN turns ON turns.id = turn_id WHERE conversation_id = ? AND answer_id = of_answer_id"
)
LOT = "crypto.getRandomValues = (drawn) => {{ drawn[0] = {drawn}; return drawn; }}"


@pytest.fixture
def chat(newcomer: Callable[..., ChatPage], played: Played) -> Iterator[ChatPage]:
    """The chat page of a new person; the browser has nothing to complain of."""
    page = newcomer(played.url)
    yield page
    assert page.complaints == []


def compare(chat: ChatPage, played: Played) -> tuple[str, str]:
    """Ask, get "Salt." and compare it with "Water."; returns what stands left and right."""
    played.engine.says = "Salt."
    chat.ask("What is the sea?")
    played.engine.says = "Water."
    chat.compare()
    expect(chat.answers).to_be_hidden()  # which of the two was there first is not shown
    return chat.sides()


def choices(chat: ChatPage, played: Played) -> list[tuple[str, str, str]]:
    """What was chosen in the conversation: left, right and the choice."""
    query = (
        "SELECT l.text, r.text AS other, choice FROM comparisons c"
        " JOIN answers l ON l.id = left_answer_id JOIN answers r ON r.id = right_answer_id"
        " JOIN turns ON turns.id = l.turn_id"
        " LEFT JOIN events ON events.comparison_id = c.id WHERE conversation_id = ?"
    )
    found = rows(played.service, query, chat.conversation)
    return [(row["text"], row["other"], row["choice"]) for row in found]


@pytest.mark.parametrize("first_is_left", [True, False])
def test_the_better_of_two_answers_is_stored_with_its_place_and_goes_on(
    chat: ChatPage, played: Played, first_is_left: bool
) -> None:
    chat.page.add_init_script(LOT.format(drawn=int(first_is_left)))
    chat.reload()
    shown = compare(chat, played)
    assert shown == (("Salt.", "Water.") if first_is_left else ("Water.", "Salt."))
    chat.choose("left")
    expect(chat.answers).to_have_text(shown[0])
    expect(chat.toast).to_have_text("Thank you.")
    assert choices(chat, played) == [(*shown, "left")]
    chosen = chat.answer_id()

    played.engine.says = "More."
    chat.ask("And then?")
    expect(chat.answers).to_have_text([shown[0], "More."])
    query = "SELECT parent_answer_id FROM turns WHERE conversation_id = ? ORDER BY created_at"
    assert rows(played.service, query, chat.conversation)[1]["parent_answer_id"] == chosen
    regenerations = "SELECT kind FROM events WHERE answer_id = ? AND kind = 'regeneration'"
    assert rows(played.service, regenerations, chosen) == []


def test_nothing_tells_which_of_the_two_was_there_first(chat: ChatPage, played: Played) -> None:
    played.engine.says = "Salt."
    chat.ask("What is the sea?")
    chat.thumb("up")
    chat.improve("Sea water.")
    played.engine.says = "Water."
    chat.compare()
    assert sorted(chat.sides()) == ["Salt.", "Water."]
    one, other = (
        re.sub(r"Salt|Water|Answer [12]", "", side.inner_html())
        for side in chat.compared.locator(".side-by-side").all()
    )
    assert one == other


def test_a_question_asked_at_once_after_a_choice_waits_for_it(
    chat: ChatPage, played: Played
) -> None:
    shown = compare(chat, played)
    later = shown[1] if shown[0] == "Salt." else shown[0]  # not the answer of the branch before
    held: list[Route] = []
    chat.page.route(f"**/chat/conversations/{chat.conversation}", lambda route: held.append(route))
    chat.choose("left" if shown[0] == later else "right")
    expect(chat.toast).to_have_text("Thank you.")
    played.engine.says = "More."
    chat.send("And then?")
    chat.page.wait_for_timeout(300)
    held[0].continue_()
    expect(chat.answers).to_have_text([later, "More."])
    expect(chat.questions.last).to_have_text("And then?")


@pytest.mark.parametrize(
    ("key", "choice"), [("1", "left"), ("2", "right"), ("3", "tie"), ("4", "both_bad")]
)
def test_keys_choose(chat: ChatPage, played: Played, key: str, choice: str) -> None:
    shown = compare(chat, played)
    chat.question_box.press_sequentially(key)  # there it is a figure
    expect(chat.compared).to_be_visible()
    chat.compared.click(position={"x": 1, "y": 1})
    chat.page.keyboard.press(key)
    expect(chat.compared).to_have_count(0)
    assert choices(chat, played) == [(*shown, choice)]
    kept = {"left": shown[0], "right": shown[1]}.get(choice, "Salt.")
    expect(chat.answers).to_have_text(kept)


def test_esc_leaves_a_comparison_with_the_first_answer_and_nothing_said(
    chat: ChatPage, played: Played
) -> None:
    compare(chat, played)
    chat.page.keyboard.press("Escape")
    expect(chat.compared).to_have_count(0)
    expect(chat.answers).to_have_text("Salt.")
    expect(chat.arrows()).to_have_text("1/2")
    assert choices(chat, played) == []
    chat.reload()
    expect(chat.answers).to_have_text("Salt.")


def test_who_asks_on_leaves_the_comparison_without_choosing(chat: ChatPage, played: Played) -> None:
    compare(chat, played)
    played.engine.says = "More."
    chat.ask("And then?")
    expect(chat.compared).to_have_count(0)
    expect(chat.answers).to_have_text(["Salt.", "More."])
    chat.turns.first.click()
    chat.page.keyboard.press("1")
    chat.reload()
    expect(chat.answers).to_have_text(["Salt.", "More."])
    assert choices(chat, played) == []


def test_who_opens_another_conversation_chooses_nothing_there(
    chat: ChatPage, played: Played
) -> None:
    compare(chat, played)
    compared = chat.conversation
    chat.new_chat()
    chat.page.locator(".welcome").click()
    chat.page.keyboard.press("1")
    chat.open(compared)
    assert choices(chat, played) == []


@pytest.mark.usefixtures("long_answers")
def test_who_stops_the_second_answer_gets_the_first_back(chat: ChatPage, played: Played) -> None:
    played.engine.says = "Salt."
    chat.ask("What is the sea?")
    played.engine.says = ""
    chat.does("compare").click()
    wait_until(lambda: played.engine.running == 1)
    chat.stop()
    expect(chat.compared).to_have_count(0)
    expect(chat.answers).to_have_text("Salt.")
    assert choices(chat, played) == []


@pytest.fixture
def offering(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is followed by an offer, except just after one."""
    monkeypatch.setattr(played.service.comparisons, "_rate", 0.5)
    monkeypatch.setattr(played.service.comparisons, "_draw", lambda: 0.0)


@pytest.mark.usefixtures("offering")
def test_a_choice_is_offered_now_and_then_and_never_twice_in_a_row(
    chat: ChatPage, played: Played
) -> None:
    played.engine.answers = iter(["Salt.", "Water.", "Sand."])
    chat.ask("What is the sea?")
    expect(chat.offer).to_be_visible()
    assert chat.answer_text() == "Salt."
    chat.offer.get_by_role("button", name="Compare the two").click()
    assert sorted(chat.sides()) == ["Salt.", "Water."]
    chat.choose("left")
    chat.ask("And the beach?")
    chat.page.wait_for_timeout(300)
    expect(chat.offer).to_have_count(0)
    assert [choice for _, _, choice in choices(chat, played)] == ["left"]


@pytest.mark.usefixtures("offering")
def test_a_second_answer_that_is_not_offered_does_not_stand_beside_the_first(
    chat: ChatPage, played: Played
) -> None:
    played.engine.answers = iter(["Salt.", "Salt.", "Sand."])  # two answers that read the same
    chat.ask("What is the sea?")
    wait_until(lambda: len(rows(played.service, HIDDEN, chat.conversation)) == 1)
    expect(chat.offer).to_have_count(0)
    chat.reload()
    expect(chat.answers).to_have_text("Salt.")
    assert "/2" not in chat.turns.inner_text()


@pytest.mark.usefixtures("offering")
def test_an_offer_that_is_refused_leaves_the_first_answer(chat: ChatPage, played: Played) -> None:
    played.engine.answers = iter(["Salt.", "Water."])
    chat.ask("What is the sea?")
    chat.offer.get_by_role("button", name="Not now").click()
    expect(chat.offer).to_have_count(0)
    chat.reload()
    expect(chat.answers).to_have_text("Salt.")
    assert choices(chat, played) == []
