"""`burnish feedback judge`: what it labels, what it prints, and what leaves the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.cli.judging import _label
from app.settings import load_settings
from app.workspace import Workspace
from engine.errors import Conflict
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from engine.request import Score, ScoreRequest
from engine.storage import list_digests
from feedback_store.ai_feedback.ai_pairs import open_ai_pairs
from feedback_store.examples.split import SplitName, split_of
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from tests.app.command_line import Cli
from tests.feedback_store.conftest import Conversations
from tests.support.scripted_engine import ScriptedEngine
from tests.tuning.test_judge import Server, server  # noqa: F401 - a fixture
from tuning.judge import Letter
from tuning.recipe_sections import RlaifRecipe

KEY = "sk-canary-4711"
LONG, SHORT = "Part of a plant, mostly green.", "A leaf."


def conversation_on(side: SplitName, number: int = 0) -> str:
    names = [name for i in range(100) if split_of(name := f"c{i}") == side]
    return names[number]


@pytest.fixture
def workspace(cli: Cli) -> Iterator[Workspace]:
    """The command's home: two turns that were regenerated and not judged, and judged pairs."""
    workspace = Workspace(load_settings(home=cli.home))
    talk = Conversations(workspace.store)
    for number, user in enumerate(("ann", "bob")):
        first = talk.ask(
            "What is a leaf? Write to ann@example.org",
            SHORT,
            user=user,
            conversation=conversation_on("train", number),
        )
        talk.again(first, LONG, user=user)
    turns = [
        ImportedTurn(
            (Message("user", f"Question {number}?"),),
            (ImportedAnswer("The sea is wide and blue."), ImportedAnswer("No.")),
            (ImportedChoice("cid", 0, 1, "left"),),
        )
        for number in range(40)
    ]
    workspace.store.add_imported(turns, PromptTemplate("plain", "", "", ()), "cid")
    yield workspace
    workspace.close()


class LikesLength(ScriptedEngine):
    """Finds the letter likelier under which the longer answer stands."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [self._score(r.messages[-1].content, r.completion) for r in requests]

    def _score(self, question: str, letter: str) -> Score:
        answers = question.split("=== Answer A ===")[1].split("=== End ===")[0]
        under_a, under_b = answers.split("=== Answer B ===")
        return Score((float(len(under_a) if letter == "A" else len(under_b)) - 10_000,))


def heldout_pairs(workspace: Workspace, snapshot: str) -> int:
    folder = workspace.home.snapshots / snapshot.removeprefix("sha256:")
    return len((folder / "heldout" / "pairs.jsonl").read_text().splitlines())


def test_the_local_model_labels_what_nobody_judged_and_is_held_against_people(
    workspace: Workspace, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: LikesLength())
    found = cli.json("feedback", "judge")
    assert found["outcomes"] == {"labelled": 2}
    assert found["agreement_with_people"] == {"agrees": heldout_pairs(workspace, found["snapshot"])}
    assert found["agreement_with_people"]["agrees"] > 0
    labels = open_ai_pairs(workspace.home.ai_labels, found["labels"])
    assert [(p.chosen.text, p.rejected.text) for p in labels.pairs] == [(LONG, SHORT)] * 2
    assert {p.origin.user_ids for p in labels.pairs} == {("ann",), ("bob",)}
    assert found["judge"] == labels.manifest["judge"] == f"engine {ScriptedEngine.base_digest} base"
    assert all(RlaifRecipe(labels=found["labels"]).rules().values())
    output, _ = cli("feedback", "judge", "--snapshot", found["snapshot"][:19])
    assert output.splitlines() == [
        found["labels"],
        f"snapshot: {found['snapshot']}",
        f"judge: {found['judge']}",
        "compared: 2 labelled",
        f"people's held-out pairs: {found['agreement_with_people']['agrees']} agrees",
    ]


@pytest.mark.integration
def test_an_endpoint_is_asked_with_the_key_of_the_settings_which_is_never_shown(
    workspace: Workspace,
    cli: Cli,
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BURNISH_JUDGE_API_KEY", KEY)
    server.says("A")  # a place, whatever stands there
    output, errors = cli("feedback", "judge", "--endpoint", server.url, "--model", "m-1", status=1)
    assert (output, errors) == ("", "burnish: the judge labelled no pair\n")
    assert {(asked["key"], asked["model"]) for asked in server.asked} == {(f"Bearer {KEY}", "m-1")}
    assert "ann@example.org" not in json.dumps(server.asked)  # redacted, as snapshots are
    assert KEY not in output + errors + "".join(map(str, [workspace.settings, load_settings()]))
    assert list_digests(workspace.home.ai_labels) == []


def test_a_home_where_nothing_can_be_compared_asks_no_judge(
    cli: Cli,
    server: Server,  # noqa: F811
) -> None:
    _, errors = cli("feedback", "judge", "--endpoint", server.url, "--model", "m", status=1)
    assert errors == "burnish: no turn has several answers that nobody judged\n"
    assert server.asked == []


@pytest.mark.parametrize("given", [("--endpoint", "http://host/v1"), ("--model", "m")])
def test_an_endpoint_without_its_models_name_is_a_usage_error(given: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["feedback", "judge", *given])
    assert result.exit_code == 2
    assert "one needs the other" in result.output


def test_people_who_refuse_are_not_shown_to_a_judge(
    workspace: Workspace, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: LikesLength())
    workspace.curation.set_consent("bob", False)
    found = cli.json("feedback", "judge")
    (pair,) = open_ai_pairs(workspace.home.ai_labels, found["labels"]).pairs
    assert pair.origin.user_ids == ("ann",)


@dataclass
class Forgetful:
    """Somebody is forgotten while it reads."""

    workspace: Workspace
    name: str = "forgetful"
    asked: list[Any] = field(default_factory=list)

    def choose(self, prompt: Sequence[Message], a: str, b: str) -> Letter | None:
        if not self.asked:
            self.workspace.forgetting.forget("bob")
        self.asked.append((a, b))
        return "A" if len(a) > len(b) else "B"


def test_labels_with_the_words_of_somebody_who_was_forgotten_meanwhile_are_not_kept(
    workspace: Workspace,
) -> None:
    with pytest.raises(Conflict, match="somebody was forgotten while the judge read"):
        _label(workspace, Forgetful(workspace), None)
    assert list_digests(workspace.home.ai_labels) == []


def test_the_command_and_its_group_answer_for_help() -> None:
    result = CliRunner().invoke(app, ["feedback", "judge", "--help"])
    assert (result.exit_code, "--endpoint" in result.output) == (0, True)
