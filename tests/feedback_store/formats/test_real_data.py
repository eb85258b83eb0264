"""The counts that are known of real files, from what their importers give to the store."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from feedback_store.formats.oasst import tree_messages
from feedback_store.records import ImportedAnswer, ImportedTurn
from tests.feedback_store.formats.helpers import preferred, turns_of

DATA = Path(
    os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[3].joinpath("../shared/data"))
)
OASST = "oasst_trees_dev.jsonl"


def real(name: str) -> Path:
    """The file, or the test is skipped with its name."""
    if not (DATA / name).is_file():
        pytest.skip(f"needs {DATA / name} (set BURNISH_TEST_DATA)")
    return DATA / name


def thumbs(answer: ImportedAnswer) -> Counter[int]:
    return Counter(vote.vote for vote in answer.votes)


def net(answer: ImportedAnswer) -> int:
    return sum(vote.vote for vote in answer.votes)


def ranked(turns: list[ImportedTurn]) -> list[tuple[int, int]]:
    """Net thumbs of the better-ranked and of the worse-ranked, for each choice."""
    return [
        (net(turn.answers[choice.left]), net(turn.answers[choice.right]))
        for turn in turns
        for choice in turn.choices
        if choice.choice == "left"
    ]


def test_the_messages_answers_and_thumbs_of_oasst() -> None:
    trees = [json.loads(line) for line in real(OASST).read_text("utf-8").splitlines()]
    assert (len(trees), sum(len(list(tree_messages(tree))) for tree in trees)) == (80, 928)
    turns = turns_of(real(OASST))
    answers = [answer for turn in turns for answer in turn.answers]
    assert (len(answers), len({turn.conversation for turn in turns})) == (544, 80)
    kinds = Counter((thumbs(a)[1] > 0, thumbs(a)[-1] > 0) for a in answers)
    assert kinds == {(True, False): 247, (False, True): 67, (True, True): 59, (False, False): 171}
    users = [vote.user for answer in answers for vote in answer.votes]
    assert len(users) == len(set(users)) == 712 + 324  # sums of the "+1" and of the "-1" counts


def test_the_ranked_pairs_of_oasst_and_how_thumbs_agree_with_them() -> None:
    pairs = ranked(turns_of(real(OASST)))
    assert len(pairs) == 618
    assert len(ranked(turns_of(real(OASST), ranks="adjacent"))) == 341
    assert sum(better * worse < 0 for better, worse in pairs) == 102
    signs = Counter((better > worse) - (better < worse) for better, worse in pairs)
    assert signs == {1: 299, -1: 170, 0: 149}


def test_the_flags_of_oasst_and_its_answers_without_ranks() -> None:
    """Four answers carry a red flag; two more follow from one that does."""
    turns = turns_of(real(OASST))
    assert sum(answer.flagged for turn in turns for answer in turn.answers) == 4
    assert sum(turn.flagged or answer.flagged for turn in turns for answer in turn.answers) == 6
    unranked = [turn for turn in turns if len(turn.answers) > 1 and not turn.choices]
    assert sorted(len(turn.answers) for turn in unranked) == [2, 3]


def test_the_solutions_of_gsm8k() -> None:
    turns = turns_of(real("gsm8k_solutions_dev600.jsonl"))
    verdicts = [Counter(net(answer) for answer in turn.answers) for turn in turns]
    right, wrong = sum(v[1] for v in verdicts), sum(v[-1] for v in verdicts)
    assert (len(turns), right + wrong, right, wrong) == (600, 2_400, 906, 1_494)
    assert sum(v[1] > 0 and v[-1] > 0 for v in verdicts) == 318
    assert sum(v[1] * v[-1] for v in verdicts) == 1_056


@pytest.mark.parametrize(
    ("name", "repeated", "system_turns"),
    [("llamafactory_dpo_en_demo.json", 5, 80), ("llamafactory_dpo_zh_demo.json", 11, 64)],
)
def test_the_preferences_people_really_have(name: str, repeated: int, system_turns: int) -> None:
    turns = turns_of(real(name))
    assert [preferred(turn)[2] for turn in turns] == ["import"] * 300
    assert len({turn.prompt for turn in turns}) == 300 - repeated
    assert sum(turn.prompt[0].role == "system" for turn in turns) == system_turns


def test_the_lone_judgements_people_really_have() -> None:
    turns = turns_of(real("llamafactory_kto_en_demo.json"))
    assert Counter(net(turn.answers[0]) for turn in turns) == {1: 150, -1: 150}


def test_the_demonstrations_people_really_have() -> None:
    assert len(turns_of(real("self_instruct_seed_tasks.jsonl"))) == 175
    identity = turns_of(real("llamafactory_identity.json"))
    rows = json.loads(real("llamafactory_identity.json").read_text("utf-8"))
    assert [turn.answers[0].text for turn in identity] == [row["output"] for row in rows]
    assert len(identity) == 91
    assert sum("{{name}}" in turn.answers[0].text for turn in identity) > 40
