"""`/v1/feedback` over a server without a model: what programs say is what the page would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from feedback_store.examples.types import Examples
from tests.app.conftest import BROWSER, Played
from tests.app.stored import said_of

ASKED = "What is a leaf?"


@pytest.fixture
def caller(api_stage: Played) -> Iterator[httpx.Client]:
    """A program with a cookie of its own."""
    with httpx.Client(base_url=api_stage.url) as client:
        client.get("/", headers=BROWSER)
        yield client


@pytest.fixture
def complete(api_stage: Played, caller: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Complete one question with given words."""

    def completed(says: str, question: str = ASKED, **more: Any) -> dict[str, Any]:
        api_stage.engine.says = says
        body = {"messages": [{"role": "user", "content": question}], **more}
        response = caller.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())

    return completed


def say(client: httpx.Client, completion: str, **said: Any) -> dict[str, Any]:
    response = client.post("/v1/feedback", json={"completion_id": completion, **said})
    assert response.status_code == 200, response.text
    return dict(response.json())


def refused(client: httpx.Client, status: int, **body: Any) -> str:
    response = client.post("/v1/feedback", json=body)
    assert response.status_code == status, response.text
    message = response.json()["error"]["message"]
    assert "\n" not in message
    return str(message)


def examples_of(played: Played, *answers: str) -> Examples:
    """The current examples in which answers stand."""
    training_set = played.service.workspace.training_set
    training_set.refresh()
    _, every = training_set.load_examples()
    return Examples(
        pairs=[p for p in every.pairs if {s.answer_id for s in p.sides} & {*answers}],
        unpaired=[e for e in every.unpaired if e.completion.answer_id in answers],
        demonstrations=[e for e in every.demonstrations if e.completion.answer_id in answers],
    )


def first_answer(completion: dict[str, Any]) -> str:
    return str(completion["choices"][0]["answer_id"])


def test_a_vote_with_reasons_is_the_one_that_the_page_stores(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    by_program, by_page = complete("Green."), complete("Flat.")
    said = {"vote": -1, "reasons": ["too_short", "wrong_facts"], "comment": "Only a colour."}
    answered = say(caller, by_program["id"], **said)
    assert answered == {
        "object": "feedback",
        "completion_id": by_program["id"],
        "vote": -1,
        "reasons": ["too_short", "wrong_facts"],
        "comment": "Only a colour.",
        "correction": None,
        "comparisons": [],
    }
    caller.post(f"/api/answers/{first_answer(by_page)}/vote", json=said)
    columns = "kind, user_id, vote, reasons, comment, correction, choice"
    stored = said_of(api_stage.service, first_answer(by_program), columns)
    assert len(stored) == 1
    assert stored == said_of(api_stage.service, first_answer(by_page), columns)
    assert caller.get(f"/v1/feedback/{by_program['id']}").json() == answered


def test_thumbs_on_two_completions_of_the_same_messages_are_a_pair(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    good, bad = complete("A part of a tree.", "Say it."), complete("A thing.", "Say it.")
    other = complete("Another.", "Say it differently.")
    say(caller, good["id"], vote=1)
    say(caller, bad["id"], vote=-1)
    say(caller, other["id"], vote=-1)
    (pair,) = examples_of(api_stage, first_answer(good)).pairs
    assert (pair.chosen.text, pair.rejected.text) == ("A part of a tree.", "A thing.")
    assert [message.content for message in pair.prompt] == ["Say it."]
    assert examples_of(api_stage, first_answer(other)).pairs == []


def test_a_correction_is_a_pair_over_the_answer(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    completion = complete("Leafs.", "What is the plural of leaf?")
    assert say(caller, completion["id"], correction="Leaves.")["correction"] == "Leaves."
    (pair,) = examples_of(api_stage, first_answer(completion)).pairs
    assert (pair.chosen.text, pair.rejected.text, pair.source) == (
        "Leaves.",
        "Leafs.",
        "correction",
    )


@pytest.mark.parametrize(
    ("preference", "seen_from_the_other", "pair"),
    [
        ("better", "worse", ("One.", "Two.")),
        ("worse", "better", ("Two.", "One.")),
        ("tie", "tie", None),
        ("both_bad", "both_bad", None),
    ],
)
def test_two_completions_are_compared(
    api_stage: Played,
    caller: httpx.Client,
    complete: Callable[..., dict[str, Any]],
    preference: str,
    seen_from_the_other: str,
    pair: tuple[str, str] | None,
) -> None:
    question = f"Which, {preference}?"
    one, two = complete("One.", question), complete("Two.", question)
    for _ in range(2):  # said twice, it is one comparison
        said = say(caller, one["id"], compared_with=two["id"], preference=preference)
    assert said["comparisons"] == [{"completion_id": two["id"], "preference": preference}]
    other = caller.get(f"/v1/feedback/{two['id']}").json()["comparisons"]
    assert other == [{"completion_id": one["id"], "preference": seen_from_the_other}]
    found = examples_of(api_stage, first_answer(one), first_answer(two))
    sides = [(each.chosen.text, each.rejected.text) for each in found.pairs]
    assert sides == ([pair] if pair else [])
    assert len(found.unpaired) == (2 if preference == "both_bad" else 0)


def test_choices_of_one_completion_are_named_by_their_answer_ids(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    api_stage.engine.answers = iter(["First.", "Second."])
    ids = [each["answer_id"] for each in complete("", "Twice?", n=2)["choices"]]
    say(caller, ids[1], compared_with=ids[0], preference="better")
    (pair,) = examples_of(api_stage, *ids).pairs
    assert (pair.chosen.text, pair.rejected.text) == ("Second.", "First.")


def test_a_repeated_key_has_no_effect_and_a_later_statement_counts(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    completion = complete("Perhaps.")
    both = {"vote": 1, "correction": "Surely.", "idempotency_key": "k" * 48}
    say(caller, completion["id"], **both)
    say(caller, completion["id"], vote=-1)
    again = say(caller, completion["id"], **both)
    assert (again["vote"], again["correction"]) == (-1, "Surely.")
    kinds = [kind for (kind,) in said_of(api_stage.service, first_answer(completion))]
    assert kinds == ["vote", "correction", "vote"]


def test_delete_takes_back_all_that_was_said_and_its_examples(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    one, two = complete("Uno.", "Withdrawn?"), complete("Due.", "Withdrawn?")
    say(caller, one["id"], vote=1, correction="Un.")
    say(caller, one["id"], compared_with=two["id"], preference="better")
    service, ids = api_stage.service, (first_answer(one), first_answer(two))
    assert len(examples_of(api_stage, *ids).pairs) == 2
    counts = service.workspace.store.counts()
    for _ in range(2):
        gone = caller.delete(f"/v1/feedback/{one['id']}")
        assert gone.json() == {
            "object": "feedback.deleted",
            "completion_id": one["id"],
            "deleted": True,
        }
    left = caller.get(f"/v1/feedback/{one['id']}").json()
    assert (left["vote"], left["correction"]) == (0, None)
    assert [each["preference"] for each in left["comparisons"]] == ["tie"]
    assert examples_of(api_stage, *ids).every == []
    after = service.workspace.store.counts()
    assert after["votes"] == counts["votes"] - 1
    assert after["corrections"] == counts["corrections"] - 1
    assert len(said_of(service, ids[0])) == 4  # a second DELETE adds nothing
    shown = caller.get("/chat/feedback").json()["statements"]
    assert {each["kind"] for each in shown if ids[0] in each["answers"]} == {"choice"}


def test_what_is_no_feedback_is_refused_in_one_sentence_and_nothing_is_stored(
    api_stage: Played, caller: httpx.Client, complete: Callable[..., dict[str, Any]]
) -> None:
    mine, elsewhere = complete("Mine."), complete("Elsewhere.", "Another question?")
    before = api_stage.service.workspace.store.counts()
    known = {"completion_id": mine["id"]}
    assert "no answer 'nothing'" in refused(caller, 404, completion_id="nothing", vote=1)
    assert "no answer 'x'" in refused(caller, 404, completion_id="chatcmpl-x", vote=1)
    text = caller.post("/v1/completions", json={"prompt": "A leaf", "max_tokens": 2}).json()
    assert "text completion" in refused(caller, 400, completion_id=text["id"], vote=1)
    assert "give a vote" in refused(caller, 400, **known)
    assert "need a vote" in refused(caller, 400, **known, correction="A.", comment="b")
    assert "vote" in refused(caller, 400, **known, vote=2)
    assert "'rude' is no reason" in refused(caller, 400, **known, vote=-1, reasons=["rude"])
    assert "correction is empty" in refused(caller, 422, **known, vote=1, correction=" ")
    assert "each other" in refused(caller, 400, **known, vote=1, preference="better")
    compared = {"compared_with": elsewhere["id"], "preference": "better"}
    assert "same question" in refused(caller, 400, **known, vote=1, **compared)
    itself = {"compared_with": mine["id"], "preference": "better"}
    assert "same question" in refused(caller, 400, **known, **itself)
    assert "colour" in refused(caller, 400, **known, vote=1, colour="red")
    with httpx.Client(base_url=api_stage.url) as stranger:
        assert "no answer" in refused(stranger, 404, **known, vote=1)
        assert stranger.delete(f"/v1/feedback/{mine['id']}").status_code == 404
        assert stranger.get(f"/v1/feedback/{mine['id']}").status_code == 404
    assert api_stage.service.workspace.store.counts() == before


def test_openai_s_client_posts_feedback(api_stage: Played) -> None:
    api_stage.engine.says = "Leaves."
    with openai.OpenAI(base_url=f"{api_stage.url}/v1", api_key="none", max_retries=0) as client:
        completion = client.chat.completions.create(
            model="live", messages=[{"role": "user", "content": "Trees?"}]
        )
        body = {"completion_id": completion.id, "vote": 1, "reasons": ["right_length"]}
        said: Any = client.post("/feedback", cast_to=object, body=body)
        assert (said["vote"], said["reasons"]) == (1, ["right_length"])
        with pytest.raises(openai.NotFoundError, match="no answer"):
            client.delete("/feedback/chatcmpl-unknown", cast_to=object)
