"""System prompts and saved prompts: a person's own, the operator's, and what a question shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.shared_prompts import default_prompts_text, read_prompts
from app.workspace import Workspace
from engine.errors import InvalidInput
from feedback_store.personal.own_prompts import PromptText
from tests.app.conftest import Played
from tests.app.web.test_chat_api import Stream, ask, view

PIRATE = {"kind": "system", "title": "Pirate", "text": "You talk like a pirate."}


@pytest.fixture(scope="module")
def stage(api_stage: Played) -> Played:
    """No page is looked at here, and no answer on its way."""
    return api_stage


@pytest.fixture
def person(played: Played) -> Callable[[], httpx.Client]:
    """A new person's client."""

    def make() -> httpx.Client:
        client = httpx.Client(base_url=played.url, timeout=60)
        client.get("/", headers={"accept": "text/html"})
        return client

    return make


def test_a_person_keeps_changes_and_removes_prompts(person: Callable[[], httpx.Client]) -> None:
    ann, bob = person(), person()
    added = ann.post("/chat/prompts", json=PIRATE).json()["id"]
    assert ann.get("/chat/prompts").json() == {"own": [{**PIRATE, "id": added}], "shared": []}
    assert bob.get("/chat/prompts").json()["own"] == []
    assert bob.put(f"/chat/prompts/{added}", json=PIRATE).status_code == 404
    assert bob.delete(f"/chat/prompts/{added}").status_code == 404
    changed = {**PIRATE, "text": "Ahoy."}
    assert ann.put(f"/chat/prompts/{added}", json=changed).status_code == 200
    assert ann.get("/chat/prompts").json()["own"] == [{**changed, "id": added}]
    assert ann.delete(f"/chat/prompts/{added}").status_code == 200
    assert ann.get("/chat/prompts").json()["own"] == []
    assert ann.post("/chat/prompts", json={**PIRATE, "title": ""}).status_code == 422


def test_the_operators_prompts_are_everybodys(
    person: Callable[[], httpx.Client], played: Played
) -> None:
    file = played.service.workspace.home.prompts
    file.write_text("saved:\n  - {title: In short, text: 'Summarise {{text}}.'}\n")
    shared = person().get("/chat/prompts").json()["shared"]
    assert shared == [{"kind": "saved", "title": "In short", "text": "Summarise {{text}}."}]
    file.write_text(default_prompts_text())
    assert person().get("/chat/prompts").json()["shared"] == []


@pytest.mark.integration
def test_a_question_is_asked_with_the_chosen_system_prompt_and_its_answers_keep_it(
    person: Callable[[], httpx.Client], played: Played
) -> None:
    client = person()
    first = ask(client, "Who are you?", system=PIRATE["text"])
    assert view(client, first.conversation)["system"] == PIRATE["text"]
    again = Stream(client.post(f"/chat/answers/{first.answer}/again", json={}))
    change = {"change": "shorter", "instruction": "Shorter."}
    client.post(f"/chat/answers/{again.answer}/again", json=change)
    asked = [request.messages[0].content for request in played.engine.requests[-3:]]
    assert asked == [PIRATE["text"]] * 3
    here = {"conversation_id": first.conversation, "parent_answer_id": again.answer}
    ask(client, "And now?", **here)
    default = played.service.workspace.settings.system_prompt
    assert played.engine.requests[-1].messages[0].content == default
    assert view(client, first.conversation)["system"] == default


def test_a_system_prompt_that_is_too_long_is_refused(person: Callable[[], httpx.Client]) -> None:
    refused = person().post("/chat/questions", json={"question": "Hi?", "system": "x" * 8_001})
    assert refused.status_code == 422
    assert "the system prompt has 8001 characters; the limit is 8000" in refused.text


def test_a_new_home_gets_a_file_that_shares_nothing_yet(played: Played) -> None:
    workspace: Workspace = played.service.workspace
    assert (workspace.home.prompts).read_text("utf-8") == default_prompts_text()
    assert workspace.shared_prompts() == ()


def test_both_lists_are_read(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "system:\n  - {title: Editor, text: You edit.}\nsaved:\n  - {title: Ask, text: 'Why?'}\n"
    )
    assert read_prompts(file) == (
        PromptText("system", "Editor", "You edit."),
        PromptText("saved", "Ask", "Why?"),
    )


def test_every_problem_of_the_file_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("system:\n  - {title: Editor}\n  - {title: '', text: x}\nsaved: none\n")
    with pytest.raises(InvalidInput) as refused:
        read_prompts(file)
    assert str(refused.value) == (
        "prompts.yaml: system 1 must have exactly title and text; "
        "system 2: the title is empty; saved must be a list"
    )
    for damaged, said in (("- a", "expected the lists system and saved"), ("a: [", "cannot read")):
        file.write_text(damaged)
        with pytest.raises(InvalidInput, match=said):
            read_prompts(file)
