"""Feedback from Open WebUI: what people say there is about the answers that this server made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.learning.open_webui import SyncReport, sync_before_round, sync_open_webui
from app.service import Service
from app.web.openai.page_tasks import is_page_task
from deploy.loop import Loop, LoopResult
from engine.errors import InvalidInput, PeerUnavailable
from engine.messages import Message
from feedback_store.examples.types import IMPORTED, Pair
from tests.app.conftest import BROWSER, Played
from tests.app.stored import rows, said_of
from tests.app.web.test_chat_api import ask as chat_ask
from tests.support.open_webui import KEY, FakeOpenWebUI, fake_open_webui, message

ANN = "openwebui:u-7"
GOOD = "An oak grows to thirty metres, and a few of them to forty."
BAD = "An oak is as tall as an oak can be, and no taller than that."
TITLE_PROMPT = (
    "### Task:\nGenerate a title.\n### Chat History:\n<chat_history>\nUSER: Hi\n</chat_history>"
)


@pytest.fixture
def peer(api_stage: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenWebUI]:
    """An empty Open WebUI, of which this server's settings know."""
    workspace = api_stage.service.workspace
    workspace.home.open_webui.unlink(missing_ok=True)
    with fake_open_webui() as fake:
        known = {"open_webui_url": fake.url, "open_webui_api_key": SecretStr(KEY)}
        settings = workspace.settings.model_copy(update=known)
        monkeypatch.setattr(workspace, "settings", settings)
        yield fake


@pytest.fixture
def ask(api_stage: Played) -> Callable[..., str]:
    """Ask as Open WebUI does, and return the answer's id."""

    def asked(says: str, question: str, **headers: str) -> str:
        api_stage.engine.says = says
        body = {"model": "live", "messages": [{"role": "user", "content": question}]}
        answered = httpx.post(f"{api_stage.url}/v1/chat/completions", json=body, headers=headers)
        return str(answered.json()["choices"][0]["answer_id"])

    return asked


def sync(played: Played, **options: Any) -> SyncReport:
    return sync_open_webui(played.service.workspace, **options)


def two_answers(question: str, *, at: int, good: str = GOOD) -> dict[str, Any]:
    return {
        "q": message("user", question, at=at),
        "a": message("assistant", good, "q", at=at),
        "b": message("assistant", f"{BAD}\n", "q", at=at, model="base"),
    }


def pairs_of(service: Service, *answers: str) -> list[Pair]:
    service.workspace.training_set.refresh()
    _, every = service.workspace.training_set.load_examples()
    return [pair for pair in every.pairs if {s.answer_id for s in pair.sides} & {*answers}]


def test_a_thumb_is_about_the_answer_that_this_server_made_and_makes_its_pair(
    api_stage: Played, peer: FakeOpenWebUI, ask: Callable[..., str]
) -> None:
    service, now = api_stage.service, int(time.time())
    good, bad = ask(GOOD, "How tall is an oak?"), ask(BAD, "How tall is an oak?")
    peer.chat("c1", two_answers("How tall is an oak?", at=now), at=now)
    reason = {"reason": "accurate_information", "comment": "Yes."}
    peer.rate("f1", "c1", "a", 1, at=now, sibling_model_ids=["base"], **reason)
    report = sync(api_stage)
    assert (report.ratings, report.on_policy, report.votes, report.comparisons) == (1, 1, 1, 1)
    columns = "kind, user_id, vote, reasons, comment"
    assert said_of(service, good, columns) == [("vote", ANN, 1, '["right_facts"]', "Yes.")]
    (pair,) = pairs_of(service, good)
    assert (pair.chosen.answer_id, pair.rejected.answer_id) == (good, bad)
    assert pair.chosen.base == pair.rejected.base == api_stage.engine.base_digest  # on-policy


def test_the_same_state_says_nothing_twice_and_a_changed_one_says_what_changed(
    api_stage: Played, peer: FakeOpenWebUI, ask: Callable[..., str]
) -> None:
    service, now = api_stage.service, int(time.time())
    good = ask(GOOD, "How high?")
    ask(BAD, "How high?")
    peer.chat("c2", two_answers("How high?", at=now), at=now)
    peer.rate("f1", "c2", "a", 1, at=now, sibling_model_ids=["base"])
    assert sync(api_stage).votes == 1
    events = service.workspace.store.event_count()
    for everything in (False, True):
        report = sync(api_stage, everything=everything)
        assert (report.votes, report.comparisons, report.taken_back) == (0, 0, 0)
    assert service.workspace.store.event_count() == events
    peer.rate("f1", "c2", "a", -1, at=now + 1, reason="too_verbose")
    report = sync(api_stage)
    assert (report.votes, report.taken_back) == (1, 1)  # and it is no win any more
    assert said_of(service, good, "vote, reasons")[-1] == (-1, '["too_long"]')
    assert pairs_of(service, good) == []
    peer.rate("f1", "c2", "a", 0, at=now + 2)
    assert sync(api_stage).taken_back == 1
    assert said_of(service, good, "vote")[-1] == (0,)


def test_only_what_changed_is_fetched(api_stage: Played, peer: FakeOpenWebUI) -> None:
    for number in range(70):  # more than a page of chats
        peer.chat(f"old{number}", {"q": message("user", "?")}, at=1_000 + number)
    peer.chat("c3", two_answers("Which?", at=2_000), at=2_000)
    for number in range(3):
        peer.rate(f"f{number}", "c3", "a", 1, at=2_000 + number)
    sync(api_stage)
    assert len([path for path in peer.asked if path.startswith("/api/v1/chats/old")]) == 70
    peer.asked.clear()
    peer.rate("f9", "c3", "b", 1, at=2_002)  # in the second of the newest one
    peer.chat("c4", two_answers("Which now?", at=3_000), at=3_000)
    sync(api_stage)
    assert peer.asked == [
        "/api/v1/evaluations/feedbacks/all/ids",
        "/api/v1/evaluations/feedback/f2",
        "/api/v1/evaluations/feedback/f9",
        "/api/v1/users/all",
        "/api/v1/chats/list/user/u-7",
        "/api/v1/chats/c3",
        "/api/v1/chats/c4",
    ]


def test_an_edited_answer_is_corrected_and_an_edit_that_is_undone_is_none(
    api_stage: Played, peer: FakeOpenWebUI, ask: Callable[..., str]
) -> None:
    service, now = api_stage.service, int(time.time())
    answer = ask(BAD, "How tall is an elm?")
    edited = message("assistant", "Thirty metres.", "q", at=now, originalContent=BAD)
    peer.chat("c5", {"q": message("user", "How tall is an elm?"), "a": edited}, at=now)
    for new in (1, 0):
        report = sync(api_stage)
        assert (report.edits, report.on_policy, report.corrections) == (1, 1, new)
    assert said_of(service, answer, "kind, user_id, correction") == [
        ("correction", ANN, "Thirty metres.")
    ]
    (pair,) = pairs_of(service, answer)
    assert (pair.chosen.text, pair.rejected.text) == ("Thirty metres.", BAD)
    undone = {**edited, "content": BAD}
    peer.chat("c5", {"q": message("user", "How tall is an elm?"), "a": undone}, at=now + 1)
    assert sync(api_stage).taken_back == 1
    assert pairs_of(service, answer) == []


def test_an_answer_from_elsewhere_is_imported_once_for_its_person(
    api_stage: Played, peer: FakeOpenWebUI
) -> None:
    service, now = api_stage.service, int(time.time())
    before = service.workspace.store.counts()
    old = "Of another model: some oaks are said to be a thousand years old."
    peer.chat("c6", two_answers("How old is an oak?", at=now, good=old), at=now)
    peer.rate("f1", "c6", "a", 1, at=now, sibling_model_ids=["base"])
    assert sync(api_stage).on_policy == 0
    sync(api_stage, everything=True)
    counts = service.workspace.store.counts()
    assert (counts["turns"], counts["answers"]) == (before["turns"] + 1, before["answers"] + 2)
    (turn,) = rows(
        service, "SELECT * FROM turns WHERE user_id = ? AND question = 'How old is an oak?'", ANN
    )
    one, two = rows(service, "SELECT * FROM answers WHERE turn_id = ? ORDER BY text", turn["id"])
    (pair,) = pairs_of(service, one["id"], two["id"])
    assert (pair.chosen.text, pair.chosen.base, pair.rejected.base) == (old, IMPORTED, IMPORTED)
    service.workspace.forgetting.forget(ANN)
    assert rows(service, "SELECT * FROM turns WHERE user_id = ?", ANN) == []


def test_what_people_were_answered_on_this_server_s_page_is_not_what_is_meant(
    api_stage: Played, peer: FakeOpenWebUI
) -> None:
    service, now = api_stage.service, int(time.time())
    api_stage.engine.says = "Of green leaves, most of the year, and of nothing else at all."
    with httpx.Client(base_url=api_stage.url) as browser:
        browser.get("/", headers=BROWSER)
        on_the_page = chat_ask(browser, "What is a hedge made of?").answer
    peer.chat("c12", two_answers("A hedge?", at=now, good=api_stage.engine.says), at=now)
    peer.rate("f1", "c12", "a", 1, at=now)
    assert sync(api_stage).on_policy == 0
    assert said_of(service, on_the_page) == []


def test_a_short_answer_is_recognised_under_its_question_alone(
    api_stage: Played, peer: FakeOpenWebUI, ask: Callable[..., str]
) -> None:
    now = int(time.time())
    mine = ask("Yes.", "Is an oak a tree?")
    for chat, question in (("c7", "Is an oak a tree?"), ("c8", "Is a stone a tree?")):
        said = {"q": message("user", question), "a": message("assistant", "Yes.", "q", at=now)}
        peer.chat(chat, said, at=now)
        peer.rate(f"f-{chat}", chat, "a", 1, at=now)
    report = sync(api_stage)
    assert (report.ratings, report.on_policy) == (2, 1)
    assert said_of(api_stage.service, mine, "vote") == [(1,)]


def test_what_cannot_be_used_or_read_is_counted_and_the_rest_comes_in(
    api_stage: Played, peer: FakeOpenWebUI
) -> None:
    now = int(time.time())
    tool = '<details type="tool_calls" done="true">\n<summary>Tool</summary>\n</details>\nSo.'
    peer.chat("c9", {"q": message("user", "?"), "a": message("assistant", tool, "q")}, at=now)
    peer.rate("f1", "c9", "a", 1, at=now)
    peer.chat("c10", two_answers("Fine?", at=now), at=now)
    peer.rate("f2", "c10", "a", 1, at=now)
    peer.rate("f3", "c10", "a", "good", at=now)
    peer.shows_chats = False
    report = sync(api_stage)
    assert report.ratings == 1
    assert report.set_aside == {
        "an answer that uses tools": 1,
        "not readable: 'rating' must be 1, 0 or -1": 1,
        "chats that the key may not read": 1,
    }


def test_each_round_of_the_loop_begins_with_what_was_said_there(
    api_stage: Played, peer: FakeOpenWebUI, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, now = api_stage.service, int(time.time())
    answer = ask("Because of the sun.", "Why is it warm?")
    said = {
        "q": message("user", "Why is it warm?"),
        "a": message("assistant", "Because of the sun.", "q", at=now),
    }
    peer.chat("c11", said, at=now)
    peer.rate("f1", "c11", "a", 1, at=now)
    votes: list[Any] = []

    def run(*_: object, **__: object) -> LoopResult:
        votes.extend(said_of(service, answer, "user_id, vote"))
        return LoopResult(ran=False, reason="not enough")

    monkeypatch.setattr(Loop, "run", run)
    assert service.rounds.run().reason == "not enough"
    assert votes == [(ANN, 1)]


def test_a_failure_is_one_sentence_and_does_not_stop_the_loop(
    api_stage: Played, peer: FakeOpenWebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = api_stage.service.workspace
    peer.is_down = True
    with pytest.raises(PeerUnavailable, match="Open WebUI answers 502 to /api/v1/evaluations"):
        sync(api_stage)
    sync_before_round(workspace)  # is logged
    wrong = {"open_webui_api_key": SecretStr("sk-wrong")}
    monkeypatch.setattr(workspace, "settings", workspace.settings.model_copy(update=wrong))
    with pytest.raises(InvalidInput, match="refuses the key") as refused:
        sync(api_stage)
    assert "sk-wrong" not in str(refused.value)
    nowhere = {"open_webui_url": "http://127.0.0.1:9"}
    monkeypatch.setattr(workspace, "settings", workspace.settings.model_copy(update=nowhere))
    with pytest.raises(PeerUnavailable, match="does not answer: ConnectError"):
        sync(api_stage)
    unset = {"open_webui_url": None}
    monkeypatch.setattr(workspace, "settings", workspace.settings.model_copy(update=unset))
    sync_before_round(workspace)
    with pytest.raises(InvalidInput, match="BURNISH_OPEN_WEBUI_URL"):
        sync(api_stage)


# Requests that Open WebUI makes for itself


def test_a_title_that_the_page_asks_for_is_no_turn(
    api_stage: Played, ask: Callable[..., str]
) -> None:
    store = api_stage.service.workspace.store
    before = store.counts()["turns"]
    assert ask("Greetings", TITLE_PROMPT) == "unsaved"
    assert ask("Greetings", "Name it.", **{"X-OpenWebUI-Task": "title_generation"}) == "unsaved"
    assert store.counts()["turns"] == before
    assert ask("Greetings", TITLE_PROMPT, **{"X-OpenWebUI-Task": ""}) != "unsaved"
    assert store.counts()["turns"] == before + 1


@pytest.mark.parametrize(
    ("messages", "is_task"),
    [
        ([Message("system", "Be kind."), Message("user", TITLE_PROMPT)], True),
        ([Message("user", f"Translate: {TITLE_PROMPT}")], False),
        ([Message("user", "### Task:\nWrite a poem.")], False),
        ([Message("user", "Hi"), Message("assistant", "Hi"), Message("user", TITLE_PROMPT)], False),
    ],
)
def test_a_task_has_the_shape_of_open_webui_s_own_prompts(
    messages: list[Message], is_task: bool
) -> None:
    assert is_page_task({}, messages) is is_task
