"""The console's tab on training data: what is listed, what an operator's buttons do to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.service import Service
from app.settings import Settings
from app.ui.feedback_console import TableState, TrainingDataPage
from app.ui.training_rows import ROWS_A_PAGE
from app.workspace import Workspace
from engine.messages import Message
from engine.prompts.modes import make_template
from feedback_store.examples.split import split_of
from feedback_store.records import ImportedAnswer, ImportedTurn, ImportedVote
from feedback_store.storage.turns import MAX_ID_CHARS
from tests.app.browser.test_chat import SCRIPT
from tests.feedback_store.helpers import examples_now

pytestmark = pytest.mark.integration

PLAIN = make_template("plain", (), "You are helpful.")
HERE = "sha256:" + "b" * 64
ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))
CHINESE = cast(gr.Request, SimpleNamespace(headers={"accept-language": "zh-CN,zh;q=0.9"}))


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A home without an engine."""
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


def answers(
    workspace: Workspace, question: str, *texts: str, conversation: str | None = None
) -> list[str]:
    """Store answers to one question of Ann's; returns their ids."""
    store = workspace.store
    turn = store.add_turn(
        user_id="ann",
        question=question,
        template=PLAIN,
        conversation_id=conversation or question[:MAX_ID_CHARS],
    )
    ids = []
    for text in texts:
        answer_id = store.begin_answer(
            turn.id, base_digest=HERE, adapter_digest=None, sampling={}, seed=0
        )
        store.finish_answer(answer_id, status="done", text=text, complete=True)
        ids.append(answer_id)
    return ids


def correct(workspace: Workspace, question: str, wrong: str, right: str) -> None:
    """A pair: a correction of an answer."""
    (answer_id,) = answers(workspace, question, wrong)
    workspace.store.correct(answer_id, "ann", right)


def contest(workspace: Workspace, question: str, text: str) -> None:
    """An imported answer on which two people disagree."""
    answer = ImportedAnswer(text, votes=(ImportedVote("ann", 1), ImportedVote("bob", -1)))
    turn = ImportedTurn((Message("user", question),), (answer,))
    workspace.store.add_imported([turn], PLAIN, "import")


def listed(page: TrainingDataPage, kind: str = "pairs", reason: str = "", search: str = "") -> Any:
    """The table and where it stands."""
    _, table, where, *_ = page.from_start(kind, reason, search, TableState(), ENGLISH)
    return table, where


def questions(table: Any) -> list[str]:
    return list(table["question"])


def test_each_kind_lists_what_it_has_with_its_reason(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    (lone,) = answers(workspace, "What is bread?", "Flour and more flour.")
    workspace.store.vote(lone, "ann", -1)
    contest(workspace, "What is tea?", "Leaves in hot water.")
    page = TrainingDataPage(workspace)
    assert listed(page)[0].values.tolist() == [
        [1, "correction", "What is the sea?", "Salt water.", "Sweet water."]
    ]
    assert listed(page, "unpaired")[0].values.tolist() == [
        [1, "vote (bad)", "What is bread?", "Flour and more flour.", ""]
    ]
    assert questions(listed(page, "demonstrations")[0]) == ["What is the sea?"]
    assert [1, "contested", "What is tea?", "Leaves in hot water.", ""] in (
        listed(page, "set_aside")[0].values.tolist()
    )


def test_a_reason_and_words_narrow_the_list_whatever_their_case(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    good, bad = answers(workspace, "Who sails?", "An old sailor.", "Nobody at all, never.")
    workspace.store.vote(good, "ann", 1)
    workspace.store.vote(bad, "ann", -1)
    contest(workspace, "What is tea?", "Leaves in hot water.")
    page = TrainingDataPage(workspace)
    assert questions(listed(page, reason="votes")[0]) == ["Who sails?"]
    assert questions(listed(page, search=" SWEET water")[0]) == ["What is the sea?"]
    assert questions(listed(page, reason="votes", search="sweet")[0]) == []
    assert questions(listed(page, "set_aside", search="HOT")[0]) == ["What is tea?"]
    assert listed(page, reason="no such reason")[1] == "1–2 / 2"  # as if none were chosen


def test_a_page_has_fifty_rows_and_the_last_one_the_rest(workspace: Workspace) -> None:
    for number in range(ROWS_A_PAGE + 1):
        correct(workspace, f"Question {number}?", f"{number} is odd.", f"{number * 7919} it is.")
    page, view = TrainingDataPage(workspace), TableState()
    filters = "pairs", "", ""
    _, table, where, *_ = page.show(*filters, view, ENGLISH)
    assert (len(table), where) == (50, "1–50 / 51")
    _, table, where, *_ = page.forward(*filters, view, ENGLISH)
    assert (list(table["#"]), where) == ([51], "51–51 / 51")
    _, table, where, *_ = page.forward(*filters, view, ENGLISH)
    assert where == "51–51 / 51"  # there is no page after the last one
    _, table, where, *_ = page.back(*filters, view, ENGLISH)
    assert where == "1–50 / 51"
    _, table, where, *_ = page.back(*filters, view, ENGLISH)
    assert where == "1–50 / 51"
    assert listed(page, search="nowhere")[1] == "0–0 / 0"


def chosen(
    page: TrainingDataPage, number: int = 1, kind: str = "pairs"
) -> tuple[TableState, list[Any]]:
    """Choose a row; returns the tab's state and the panel's updates."""
    view = TableState()
    page.show(kind, "", "", view, ENGLISH)
    event = cast(gr.SelectData, SimpleNamespace(row_value=[str(number)]))
    _, *updates = page.choose(view, event, ENGLISH)
    return view, updates


def facts_of(updates: list[Any]) -> dict[str, str]:
    """The panel's facts: its seventh update."""
    lines = (line.partition(": ") for line in str(updates[6]).splitlines())
    return {name: value for name, _, value in lines}


def test_a_chosen_row_says_who_wrote_and_said_what(service: Service) -> None:
    workspace = service.workspace
    good, bad = answers(workspace, "Who sails?", "An old sailor.", "Nobody at all, never.")
    workspace.store.vote(good, "ann", 1)
    workspace.store.vote(bad, "ann", -1, reasons=["wrong_facts"], comment="Sailors do.")
    _, updates = chosen(TrainingDataPage(workspace))
    assert updates[2] == "system: You are helpful.\nuser: Who sails?"
    assert [updates[i]["value"] for i in (3, 4)] == ["An old sailor.", "Nobody at all, never."]
    facts = facts_of(updates)
    assert facts["users"] == "ann"
    assert facts["events"] == "1, 2"
    assert facts["said"] == "down: Wrong facts; Sailors do."
    assert facts["policy"] == "off"  # another base wrote it
    assert facts["chosen written by"] == "base"
    assert facts["conversation"] == f"Who sails? ({split_of('Who sails?')})"


def test_an_excluded_pair_leaves_the_training_set_and_comes_back(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    page = TrainingDataPage(workspace)
    view, _ = chosen(page)
    page.exclude("it is a joke", view, ENGLISH)
    examples = examples_now(workspace.training_set)
    assert examples.pairs == []
    assert examples.set_aside_counts["excluded by the operator"] == 1
    number = next(
        row[0]
        for row in listed(page, "set_aside")[0].values.tolist()
        if row[1] == "excluded by the operator"
    )
    view, updates = chosen(page, number, "set_aside")
    assert facts_of(updates)["decided"] == "exclude: it is a joke"
    page.take_back("it is not", view, ENGLISH)
    assert len(examples_now(workspace.training_set).pairs) == 1


def test_an_edit_changes_the_side_that_was_touched_and_no_other(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    page = TrainingDataPage(workspace)
    view, _ = chosen(page)
    page.edit("Salt water, and much of it.", "Sweet water.", "", view, ENGLISH)
    (pair,) = examples_now(workspace.training_set).pairs
    assert (pair.chosen.text, pair.rejected.text) == ("Salt water, and much of it.", "Sweet water.")
    assert pair.chosen.base == "person"
    assert pair.rejected.base == HERE
    (decision,) = workspace.curation.decisions().values()
    assert decision.rejected is None


def test_what_cannot_be_decided_is_said_and_changes_nothing(workspace: Workspace) -> None:
    contest(workspace, "What is tea?", "Leaves in hot water.")
    page = TrainingDataPage(workspace)
    with pytest.raises(gr.Error, match="Choose a row first"):
        page.exclude("", TableState(), ENGLISH)
    view, _ = chosen(page, kind="set_aside")
    with pytest.raises(gr.Error, match="set aside already"):
        page.exclude("", view, ENGLISH)
    with pytest.raises(gr.Error, match="nothing was decided"):
        page.take_back("", view, ENGLISH)
    assert workspace.curation.decisions() == {}


def test_only_a_held_out_conversation_can_be_gold(workspace: Workspace) -> None:
    names = [f"c{number}" for number in range(100)]
    train = next(name for name in names if split_of(name) == "train")
    heldout = next(name for name in names if split_of(name) == "heldout")
    for number, name in enumerate((train, heldout)):
        (answer_id,) = answers(workspace, f"Question {number}?", "Yes.", conversation=name)
        workspace.store.correct(answer_id, "ann", "No.")
    page = TrainingDataPage(workspace)
    by_question = {q: i for i, q in enumerate(questions(listed(page)[0]), start=1)}
    view, updates = chosen(page, by_question["Question 0?"])
    assert updates[-1]["interactive"] is False
    with pytest.raises(gr.Error, match="training side"):
        page.toggle_gold(view, ENGLISH)
    view, updates = chosen(page, by_question["Question 1?"])
    assert updates[-1]["interactive"] is True
    page.toggle_gold(view, ENGLISH)
    assert workspace.curation.gold() == {heldout}
    page.toggle_gold(view, ENGLISH)
    assert workspace.curation.gold() == frozenset()


def shared_rows(page: TrainingDataPage, request: gr.Request = ENGLISH) -> list[list[str]]:
    """The table of approved answers."""
    return list(page.shared(request)[1].values.tolist())


def test_an_answer_is_shown_to_everybody_and_no_longer(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    page = TrainingDataPage(workspace)
    assert page.shared(ENGLISH)[0]["label"] == "Shown to everybody (0)"
    view, updates = chosen(page)
    assert updates[-2] == gr.update(interactive=True, value="Show to everybody as an example")
    page.toggle_shared(view, ENGLISH)
    assert page.shared(ENGLISH)[0]["label"] == "Shown to everybody (1)"
    assert shared_rows(page) == [["What is the sea?", "Salt water.", "shown"]]
    assert [e.answer for e in workspace.shared_examples.examples()] == ["Salt water."]
    view, updates = chosen(page)
    assert updates[-2]["value"] == "No longer show to everybody"
    workspace.curation.set_consent("ann", False)
    ((_, answer_id, why_not),) = shared_rows(page)
    assert (frozenset({answer_id}), "does not consent" in why_not) == (
        workspace.shared_examples.answer_ids(),
        True,
    )
    page.toggle_shared(view, ENGLISH)
    assert shared_rows(page) == []


def test_what_can_be_no_example_is_refused_in_the_operators_language(workspace: Workspace) -> None:
    (lone,) = answers(workspace, "What is bread?", "Flour and more flour.")
    workspace.store.vote(lone, "ann", -1)
    page = TrainingDataPage(workspace)
    view, _ = chosen(page, kind="unpaired")
    with pytest.raises(gr.Error, match="neither liked nor corrected"):
        page.toggle_shared(view, ENGLISH)
    with pytest.raises(gr.Error, match="既未点赞也未修正"):
        page.toggle_shared(view, CHINESE)
    assert shared_rows(page) == []


def test_everything_is_said_in_chinese_to_who_reads_chinese(workspace: Workspace) -> None:
    correct(workspace, "What is the sea?", "Sweet water.", "Salt water.")
    page, view = TrainingDataPage(workspace), TableState()
    _, table, _, kinds, reasons, *_ = page.from_start("pairs", "", "", view, CHINESE)
    assert list(table) == ["#", "原因", "问题", "回答", "另一个回答"]
    assert table["原因"].tolist() == ["修正"]
    assert kinds["choices"][0] == ("偏好对 (1)", "pairs")
    assert reasons["choices"] == [("全部", ""), ("修正 (1)", "correction")]
    event = cast(gr.SelectData, SimpleNamespace(row_value=["1"]))
    _, *updates = page.choose(view, event, CHINESE)
    assert updates[2].startswith("系统：")
    assert updates[3]["label"] == "较好的回答"
    assert "较好回答的作者：人" in updates[6]
    assert (updates[-2]["value"], list(page.shared(CHINESE)[1])) == (
        "作为示例向所有人展示",
        ["问题", "回答", "状态"],
    )
    with pytest.raises(gr.Error, match=r"尚未对 .* 做过决定"):
        page.take_back("", view, CHINESE)


# In a browser


def test_a_chosen_language_counts_on_the_whole_page(console: Page) -> None:
    console.get_by_label("Language").click()
    console.get_by_role("option", name="中文").click()
    expect(console.get_by_role("tab", name="训练数据")).to_be_visible(timeout=30_000)
    status = console.locator("#status textarea")
    expect(status).to_have_value(re.compile("^当前上线：基础模型"), timeout=30_000)
    expect(console.locator("#desk")).to_contain_text("需要您处理")
    expect(console).to_have_title("Burnish 控制台")
    console.get_by_role("tab", name="训练数据").click()
    expect(console.locator("#rows")).to_contain_text("另一个回答")
    console.get_by_label("语言").click()
    console.get_by_role("option", name="English").click()
    expect(console.get_by_role("tab", name="Training data")).to_be_visible(timeout=30_000)


@pytest.fixture
def console(chromium: Browser, url: str, service: Service) -> Iterator[Page]:
    """The tab, over one pair whose every text is a script."""
    correct(service.workspace, f"Sea? {SCRIPT}", f"Sweet. {SCRIPT}", f"Salt. {SCRIPT}")
    context = chromium.new_context(locale="en-US", viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(f"{url}/console/")
    page.get_by_role("tab", name="Training data").click()
    expect(page.get_by_text("1–1 / 1")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def cell(page: Page, text: str) -> Locator:
    """The first cell of the table with a text."""
    return page.locator("#rows [role=gridcell]").filter(has_text=text).first


def test_the_operator_excludes_a_pair_with_a_note_and_takes_it_back(
    console: Page, service: Service
) -> None:
    training_set = service.workspace.training_set
    cell(console, "Sea?").click()
    expect(console.locator("#side-1 textarea")).to_have_value(f"Salt. {SCRIPT}")
    console.fill("#note textarea, #note input", "it is a script")
    console.click("#exclude")
    expect(console.get_by_text("0–0 / 0")).to_be_visible(timeout=20_000)
    assert examples_now(training_set).pairs == []
    (decision,) = service.workspace.curation.decisions().values()
    assert (decision.action, decision.note) == ("exclude", "it is a script")

    console.get_by_label("Set aside").check()
    cell(console, "excluded by the operator").click()
    expect(console.locator("#facts textarea")).to_have_value(
        re.compile("decided: exclude: it is a script")
    )
    console.click("#take-back")
    console.get_by_label("Better and worse (pairs) (1)").check(timeout=20_000)
    expect(cell(console, "Sea?")).to_be_visible()
    assert len(examples_now(training_set).pairs) == 1


def test_the_operator_shows_an_answer_to_everybody_and_no_longer(
    console: Page, service: Service
) -> None:
    cell(console, "Sea?").click()
    console.get_by_role("button", name="Show to everybody as an example").click()
    expect(console.get_by_text("Shown to everybody (1)")).to_be_visible(timeout=20_000)
    (example,) = service.workspace.shared_examples.examples()
    assert example.answer == f"Salt. {SCRIPT}"
    console.get_by_text("Shown to everybody (1)").click()
    expect(console.locator("#shared")).to_contain_text("Salt.")
    cell(console, "Sea?").click()
    console.get_by_role("button", name="No longer show to everybody").click()
    expect(console.get_by_text("Shown to everybody (0)")).to_be_visible(timeout=20_000)
    assert service.workspace.shared_examples.examples() == ()


def test_an_edit_in_the_browser_is_what_is_trained_on(console: Page, service: Service) -> None:
    cell(console, "Sea?").click()
    expect(console.locator("#side-1 textarea")).to_have_value(f"Salt. {SCRIPT}")
    console.fill("#side-1 textarea", "Salt, and a lot of it.")
    console.click("#edit")
    expect(cell(console, "a lot of it")).to_be_visible(timeout=20_000)
    (pair,) = examples_now(service.workspace.training_set).pairs
    assert pair.chosen.text == "Salt, and a lot of it."


def test_a_script_in_training_data_is_shown_and_does_not_run(console: Page) -> None:
    expect(cell(console, "Sea?")).to_contain_text("onerror")
    cell(console, "Sea?").click()
    expect(console.locator("#prompt textarea")).to_have_value(re.compile("<script>"))
    expect(console.locator("#changes")).to_contain_text("<script>")
    console.fill("#note textarea, #note input", SCRIPT)
    console.click("#exclude")
    expect(console.get_by_text("0–0 / 0")).to_be_visible(timeout=20_000)
    console.get_by_label("Set aside").check()
    cell(console, "excluded by the operator").click()
    expect(console.locator("#facts textarea")).to_have_value(re.compile("<script>"))
    console.wait_for_timeout(500)
    assert console.evaluate("window.hacked") is None
