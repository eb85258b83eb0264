"""Drafts from documents: what is kept of what a model wrote, and what training sees of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from app.grounding import ENGLISH
from app.learning.drafting import (
    Drafter,
    demonstration_of,
    draft_order,
    is_near,
    learn_draft,
    read_draft,
)
from app.settings import Settings
from app.workspace import Workspace
from engine.errors import InvalidInput, UnknownId
from engine.messages import Message
from engine.request import SamplingParams
from feedback_store.ai_feedback.drafts import Draft
from tests.support.documents import read_in_this_process
from tests.support.scripted_engine import ScriptedEngine

LEAVE = Document(
    "Employees have thirty days of vacation a year.",
    metadata={"source": "leave.md", "heading": "Leave", "document": "sha256:1", "passage": 0},
)
TRAVEL = Document("火车票订二等座，航班须经总监批准。", metadata={"source": "差旅.md"})
WRITTEN = "Question: How many days of vacation are there?\nAnswer: There are thirty vacation days."


@pytest.fixture
def workspace(settings: Settings) -> Workspace:
    """A home without an engine."""
    return Workspace(settings)


def drafts_of(says: list[str], passages: list[Document], known: list[str]) -> list[Draft]:
    """What a model that says this drafts from passages."""
    engine = ScriptedEngine()
    engine.answers = iter(says)
    drafter = Drafter(engine, None, "base", SamplingParams())
    return list(drafter.draft("Handbook", passages, known))


def learnt_by(workspace: Workspace) -> list[tuple[str, ...]]:
    """Who said so, of each demonstration that training would learn."""
    workspace.training_set.refresh()
    learnt = workspace.training_set.load_examples()[1].demonstrations
    return [each.origin.user_ids for each in learnt]


def test_a_draft_is_a_question_an_answer_and_the_passage_of_both() -> None:
    (draft,) = drafts_of([WRITTEN], [LEAVE], [])
    assert draft.question == "How many days of vacation are there?"
    assert draft.answer == "There are thirty vacation days."
    assert draft.passage["source"] == "leave.md"
    assert draft.passage["text"] == LEAVE.page_content


@pytest.mark.parametrize(
    "written",
    [
        "Thirty days.",  # not in the form
        "Question: How many days?\nAnswer:",
        "Question: What is for lunch?\nAnswer: Lunch on Fridays is pasta with tomatoes.",
        "Question: How many days?\nAnswer: Employees have 40 days of vacation a year.",
    ],
)
def test_what_is_no_draft_or_has_no_support_is_left_out(written: str) -> None:
    assert read_draft(written, LEAVE, "Handbook", "base") is None


def test_a_chinese_passage_is_asked_for_and_read_in_chinese() -> None:
    assert draft_order(TRAVEL.page_content).startswith("请根据下面的段落")
    written = "问题：火车票订几等座？\n答案：火车票订二等座。\n\n问题：还有吗？"
    draft = read_draft(written, TRAVEL, "手册", "base")
    assert draft is not None
    assert (draft.question, draft.answer) == ("火车票订几等座？", "火车票订二等座。")


def test_questions_are_near_by_their_longest_common_subsequence() -> None:
    # 5 of 6 words in order: 2 * 5 / (6 + 6) = 0.83; 3 of 6: 0.5
    asked = "how many days of vacation exist"
    assert is_near("How many days of leave exist?", [asked])
    assert not is_near("how many hours make a vacation", [asked])
    assert is_near("年假有多少天？", ["年假有多少天呢？"])


def test_a_question_that_was_drafted_before_is_not_drafted_again() -> None:
    twice = [WRITTEN, WRITTEN]
    assert len(drafts_of(twice, [LEAVE, LEAVE], [])) == 1
    assert drafts_of(twice, [LEAVE], ["How many days of vacation are there"]) == []


def test_nothing_is_trained_on_until_it_is_approved(workspace: Workspace) -> None:
    drafts = workspace.drafts
    drafts.add(drafts_of([WRITTEN], [LEAVE], []))
    (waiting,) = drafts.waiting()
    workspace.training_set.refresh()
    assert workspace.training_set.load_examples()[1].every == []
    prompt, shown = demonstration_of(waiting, "You are kind.")
    drafts.approve(shown, waiting.id, prompt)
    workspace.training_set.refresh()
    (example,) = workspace.training_set.load_examples()[1].demonstrations
    assert example.completion.text == "There are thirty vacation days. [1]"
    system, asked = example.prompt
    assert system == Message("system", "You are kind.")
    assert asked.content.startswith(ENGLISH.instruction)
    assert "[1] leave.md, Leave\nEmployees have thirty days" in asked.content
    assert asked.content.endswith("Question: How many days of vacation are there?")
    assert drafts.waiting() == []
    with pytest.raises(UnknownId):
        drafts.approve(shown, waiting.id, prompt)
    workspace.close()


def test_a_dropped_draft_is_neither_learnt_nor_drafted_again(workspace: Workspace) -> None:
    drafts = workspace.drafts
    drafts.add(drafts_of([WRITTEN], [LEAVE], []))
    (waiting,) = drafts.waiting()
    assert drafts.drop(waiting.id[:6]).id == waiting.id
    with pytest.raises(UnknownId):
        drafts.drop(waiting.id)
    workspace.training_set.refresh()
    assert workspace.training_set.load_examples()[1].every == []
    assert drafts.drafted("Handbook") == ({LEAVE.page_content}, [waiting.question])
    workspace.close()


def test_what_is_taken_back_waits_again_and_is_learnt_no_more(workspace: Workspace) -> None:
    drafts = workspace.drafts
    drafts.add(drafts_of([WRITTEN], [LEAVE], []))
    (waiting,) = drafts.waiting()
    with pytest.raises(UnknownId):
        drafts.undo(waiting.id)  # nothing was decided
    drafts.drop(waiting.id)
    assert drafts.undo(waiting.id[:6], "rita").id == waiting.id  # as nobody's name is at a drop
    assert learn_draft(drafts, waiting, "", "rita").answer == "There are thirty vacation days. [1]"
    assert learnt_by(workspace) == [("rita",)]
    with pytest.raises(UnknownId):
        drafts.undo(waiting.id, "rob")
    drafts.undo(waiting.id, "rita")
    assert learnt_by(workspace) == []
    assert [each.id for each in drafts.waiting()] == [waiting.id]
    learn_draft(drafts, drafts.waiting()[0], "", "rob")
    with pytest.raises(UnknownId):
        drafts.undo(waiting.id, "rita")  # it is rob's by now
    assert learnt_by(workspace) == [("rob",)]
    workspace.close()


@pytest.mark.parametrize("changed", [{"question": " "}, {"answer": "\n"}, {"answer": "\0"}])
def test_a_draft_without_words_is_not_approved(
    workspace: Workspace, changed: dict[str, Any]
) -> None:
    workspace.drafts.add(drafts_of([WRITTEN], [LEAVE], []))
    (waiting,) = workspace.drafts.waiting()
    with pytest.raises(InvalidInput):
        learn_draft(workspace.drafts, replace(waiting, **changed), "")
    assert workspace.drafts.count_waiting() == 1
    workspace.close()


def test_the_commands_draft_list_approve_and_drop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from app.cli import data
    from app.service import Service
    from feedback_store.documents.library import Collection

    engine = ScriptedEngine()
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: engine)
    engine.answers = iter([WRITTEN])
    service = Service(Workspace(settings))
    file = tmp_path / "leave.md"
    file.write_text(f"# Leave\n\n{LEAVE.page_content}\n")
    with read_in_this_process():
        service.workspace.documents.add(Collection("Handbook"), file, "leave.md")
    assert data._draft(service, "Handbook", 10) == (1, 1)
    assert data._draft(service, "Handbook", 10) == (0, 0)  # the passage has its draft
    (waiting,) = service.workspace.drafts.waiting()
    service.close()
    home = settings.home
    data.approve_draft(waiting.id[:8], question=None, answer="Thirty.", home=home, as_json=True)
    data.list_drafts(home=home, as_json=True)
