"""A canary in a running server: who answers through the chat and the API, and who is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import select

from app.answering.answer_options import AnswerOptions
from app.service import Service
from app.web.completion_ids import answer_named
from deploy.canary.plan import Arm, Canary
from engine.request import SamplingParams
from feedback_store.storage import tables as t
from tests.helpers import make_bundle

SHORT = SamplingParams(temperature=0, max_new_tokens=2, ignore_eos=True)
Conversation = Callable[[Arm], str]


@pytest.fixture
def canary(service: Service) -> Iterator[Canary]:
    """A canary with half of the conversations, against the base model."""
    workspace = service.workspace
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, {"verdict": "better", "incumbent": None})
    yield workspace.canaries.start_by("the operator", bundle, share=0.5)


@pytest.fixture
def conversation(canary: Canary) -> Conversation:
    """A conversation of an arm."""
    names = [f"c{i}" for i in range(100)]
    return lambda arm: next(name for name in names if canary.plan.arm_of(name) == arm)


def ask(service: Service, conversation_id: str, parent: str | None = None) -> str:
    """Ask a question in a conversation; returns the answer's id."""
    options = AnswerOptions(sampling=SHORT)
    answer = service.chat.ask(
        "ann", "Hello?", options, conversation_id=conversation_id, parent_answer_id=parent
    )
    *_, last = answer
    return str(last.answer_id)


def writer(service: Service, answer_id: str) -> str | None:
    return service.workspace.store.answer(answer_id, "ann").adapter_digest


def test_a_conversation_keeps_its_release_through_all_that_is_asked_of_it(
    service: Service, canary: Canary, conversation: Conversation
) -> None:
    store = service.workspace.store
    for arm, release in (("candidate", canary.plan.candidate), ("live", None)):
        first = ask(service, conversation(arm))  # type: ignore[arg-type]
        second = ask(service, conversation(arm), parent=first)  # type: ignore[arg-type]
        again = [*service.chat.regenerate("ann", second, sampling=SHORT)][-1]
        shorter = [*service.chat.change("ann", second, "shorter", "Shorter.", sampling=SHORT)][-1]
        asked = [first, second, str(again.answer_id), str(shorter.answer_id)]
        assert [writer(service, each) for each in asked] == [release] * 4
    assert store.counts()["regenerations"] == 2


def test_a_comparison_is_between_the_two_releases_whichever_was_first(
    service: Service, canary: Canary, conversation: Conversation
) -> None:
    candidate = canary.plan.candidate
    for arm, second in (("candidate", None), ("live", candidate)):
        first = ask(service, conversation(arm))  # type: ignore[arg-type]
        other = [*service.comparisons.second_answer("ann", first, sampling=SHORT)][-1]
        assert writer(service, str(other.answer_id)) == second
        service.workspace.store.choose(
            service.workspace.store.compare(first, str(other.answer_id), "ann").id, "ann", "left"
        )
    standing = service.workspace.canaries.status(canary).standing
    assert standing.comparisons == 2
    assert [standing.arms[arm].good for arm in ("candidate", "live")] == [1, 1]


def test_a_thumb_counts_for_the_release_that_wrote_the_answer(
    service: Service, canary: Canary, conversation: Conversation
) -> None:
    service.workspace.store.vote(ask(service, conversation("candidate")), "ann", 1)
    service.workspace.store.vote(ask(service, conversation("live")), "ann", -1)
    standing = service.workspace.canaries.status(canary).standing
    assert standing.arms["candidate"].good == standing.arms["live"].bad == 1
    assert standing.better > 1 > standing.worse


def test_an_adapter_that_cannot_be_served_ends_the_canary_and_nobody_notices(
    service: Service,
) -> None:
    workspace = service.workspace
    damaged = make_bundle(workspace.home.bundles, workspace.base, seed=1)
    workspace.registry.add(damaged, {"verdict": "better", "incumbent": None})
    folder = workspace.home.bundles / damaged.removeprefix("sha256:")
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    plan = workspace.canaries.start_by("the operator", damaged, share=0.5).plan
    chosen = next(name for name in map(str, range(100)) if plan.arm_of(name) == "candidate")
    assert writer(service, ask(service, chosen)) is None
    newest = workspace.canaries.newest()
    assert newest is not None and newest.outcome == "rolled back"


def test_of_the_api_a_stored_response_without_a_model_is_part_of_it(
    service: Service, canary: Canary, api_url: str
) -> None:
    """Each first message begins a conversation; one that follows stays with its release."""
    drawn = set()
    for number in range(8):
        body = {"input": f"Question {number}?", "max_output_tokens": 2, "temperature": 0}
        first = httpx.post(f"{api_url}/v1/responses", json=body).json()
        body["previous_response_id"] = first["id"]
        second = httpx.post(f"{api_url}/v1/responses", json=body).json()
        named = httpx.post(
            f"{api_url}/v1/responses", json={**body, "model": "live", "input": f"Named {number}?"}
        ).json()
        rows = [_stored(service, each["id"]) for each in (first, second, named)]
        (conversation_id, first_by), (_, second_by), (_, named_by) = rows
        assert first_by == canary.plan.release_of(canary.plan.arm_of(conversation_id))
        assert second_by == first_by
        assert named_by is None  # the live release, by its name
        drawn.add(first_by)
    assert drawn == {None, canary.plan.candidate}


def _stored(service: Service, response_id: str) -> tuple[str, str | None]:
    """The conversation of a response, and the adapter that wrote it."""
    query = (
        select(t.turns.c.conversation_id, t.answers.c.adapter_digest)
        .join(t.answers, t.answers.c.turn_id == t.turns.c.id)
        .where(t.answers.c.id == answer_named(response_id))
    )
    with service.workspace.database.read() as connection:
        row = connection.execute(query).one()
    return row[0], row[1]
