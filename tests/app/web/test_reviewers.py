"""What reviewers choose in the console's queue is said by them, about questions of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from app.service import Service
from app.settings import Settings
from app.web.chat.comparisons_api import QUEUE_ROUTES, comparisons_router
from app.web.server import build_app
from app.workspace import Workspace
from feedback_store.accounts.accounts import Account
from feedback_store.accounts.person import AccountRole
from feedback_store.records import OPERATOR
from tests.app.browser.test_queue import wait_to_be_compared
from tests.app.conftest import BROWSER, Played, listening
from tests.app.stored import rows
from tests.app.web.test_identity import account_of, signed_in
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.usefixtures("quick_passwords")
ROLES: dict[str, AccountRole] = {
    "ann": "user",
    "rita": "reviewer",
    "rob": "reviewer",
    "olga": "operator",
}


class Room(NamedTuple):
    """A server with accounts: of a person who asks, two reviewers and an operator."""

    played: Played
    accounts: dict[str, Account]

    def client(self, name: str) -> httpx.Client:
        return signed_in(httpx.Client(base_url=self.played.url, headers=BROWSER), name)


@pytest.fixture
def room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    engine = ScriptedEngine()
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: engine)
    service = Service(Workspace(settings.model_copy(update={"accounts": True})))
    accounts = {
        name: account_of(service.workspace.accounts, name, role) for name, role in ROLES.items()
    }
    app = build_app(service, lambda app: app.include_router(comparisons_router(service)))
    with listening(service, app) as url:
        yield Room(Played(service, engine, url), accounts)
    service.close()


def choose(client: httpx.Client, choice: str) -> int:
    """Judge the comparison that is first in the queue; returns its number."""
    (first, *_) = client.get(QUEUE_ROUTES).json()["waiting"]
    said = client.post(f"{QUEUE_ROUTES}/{first['id']}/choice", json={"choice": choice})
    assert said.status_code == 200, said.text
    return int(first["id"])


def pairs_of(service: Service) -> dict[tuple[str, ...], int]:
    """The number of pairs that train, by the people who said so."""
    service.workspace.training_set.refresh()
    found: dict[tuple[str, ...], int] = {}
    for pair in service.workspace.training_set.load_examples()[1].pairs:
        found[pair.origin.user_ids] = found.get(pair.origin.user_ids, 0) + 1
    return found


def test_each_choice_is_stored_under_the_account_that_made_it(room: Room) -> None:
    asker, service = room.accounts["ann"].id, room.played.service
    wait_to_be_compared(room.played, 3, asker)
    for name in ("rita", "rob", "olga"):
        choose(room.client(name), "left")
    judges = [room.accounts[name].id for name in ("rita", "rob", "olga")]
    stored = [row["user_id"] for row in rows(service, "SELECT user_id FROM comparisons")]
    assert sorted(stored) == sorted(judges)
    assert pairs_of(service) == {(judge,): 1 for judge in judges}


def test_a_choice_is_taken_back_by_who_made_it_alone(room: Room) -> None:
    wait_to_be_compared(room.played, 1, room.accounts["ann"].id)
    rita, rob = room.client("rita"), room.client("rob")
    chosen = f"{QUEUE_ROUTES}/{choose(rita, 'right')}"
    assert rob.post(f"{chosen}/undo").status_code == 404
    assert rita.post(f"{chosen}/undo").status_code == 200
    assert rob.post(f"{chosen}/choice", json={"choice": "left"}).status_code == 200
    assert pairs_of(room.played.service) == {(room.accounts["rob"].id,): 1}


def test_neither_sees_more_of_the_other_than_before(room: Room) -> None:
    """The reviewer's own feedback has no question of others; the asker's data no reviewer."""
    asker, reviewer = room.accounts["ann"].id, room.accounts["rita"].id
    wait_to_be_compared(room.played, 1, asker)
    rita = room.client("rita")
    choose(rita, "left")
    assert rita.get("/chat/feedback").json()["statements"] == []
    (said,) = rita.get("/chat/person/data").json()["statements"]
    assert (said["kind"], said["choice"], said["user_id"]) == ("choice", "left", reviewer)
    kept: dict[str, Any] = room.client("ann").get("/chat/person/data").json()
    (turn,) = kept["conversations"][0]["turns"]
    assert len(turn["comparisons"]) == 1
    assert [each["kind"] for each in kept["statements"]] == ["vote", "choice"]
    assert reviewer not in str(kept)


def test_a_reviewer_who_refuses_training_or_is_forgotten_teaches_nothing(room: Room) -> None:
    service, rita = room.played.service, room.accounts["rita"].id
    wait_to_be_compared(room.played, 1, room.accounts["ann"].id)
    choose(room.client("rita"), "left")
    service.workspace.curation.set_consent(rita, False)
    assert pairs_of(service) == {}
    service.workspace.curation.set_consent(rita, True)
    assert pairs_of(service) == {(rita,): 1}
    service.workspace.forgetting.forget(rita)
    assert pairs_of(service) == {}
    assert service.workspace.comparison_queue.counts()["waiting"] == 1


def test_choices_from_before_there_were_accounts_count_as_they_did(room: Room) -> None:
    service = room.played.service
    wait_to_be_compared(room.played, 2, room.accounts["ann"].id)
    queue = service.workspace.comparison_queue
    queue.choose(queue.waiting(1)[0].id, OPERATOR, "left")
    olga = room.accounts["olga"].id
    choose(room.client("olga"), "right")
    assert pairs_of(service) == {(OPERATOR,): 1, (olga,): 1}
