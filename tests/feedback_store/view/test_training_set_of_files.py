"""Real files, through the importers and the pair builder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feedback_store.curation.decisions import Curation
from feedback_store.formats import Ranks, import_file
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import sqlite_url
from tests.feedback_store.helpers import examples_now, real


class Imported:
    """A store into which one real file was imported: its evidence and the examples of it."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        file = real(name)
        database = Database(sqlite_url(folder))
        import_file(FeedbackStore(database), file, **options)
        reader = EvidenceReader(database)
        self.evidence = list(reader.all())
        self.examples = examples_now(TrainingSet(reader, Curation(database)), reestimate=True)
        database.close()

    def aside(self, *reasons: str, kind: int) -> int:
        """How many pairs (2) or lone examples (1) were set aside for these reasons."""
        return sum(
            item.reason in reasons and len(item.answer_ids) == kind
            for item in self.examples.set_aside
        )


@pytest.mark.integration
@pytest.mark.parametrize(("ranks", "count"), [("all", 618), ("adjacent", 341)])
def test_every_ranked_pair_of_oasst_is_a_pair_or_set_aside(
    tmp_path: Path, ranks: Ranks, count: int
) -> None:
    imported = Imported(tmp_path, "oasst_trees_dev.jsonl", ranks=ranks)
    ranked = {choice.event_id for evidence in imported.evidence for choice in evidence.choices}
    paired = [
        event
        for pair in imported.examples.pairs
        for event in pair.origin.event_ids
        if pair.source == "comparison"
    ]
    aside = {event for item in imported.examples.set_aside for event in item.event_ids}
    assert len(ranked) == count
    assert len(paired) == len(set(paired))
    assert set(paired) <= ranked
    assert ranked - set(paired) == ranked & aside


@pytest.mark.integration
def test_thumbs_and_ranks_of_oasst_agree_as_often_as_is_known(tmp_path: Path) -> None:
    signs: Counter[int] = Counter()
    opposite = 0
    for evidence in Imported(tmp_path, "oasst_trees_dev.jsonl").evidence:
        net: Counter[str] = Counter()
        for vote in evidence.votes:
            net[vote.answer_id] += vote.vote
        for choice in evidence.choices:
            better, worse = net[choice.left_answer_id], net[choice.right_answer_id]
            signs[(better > worse) - (better < worse)] += 1
            opposite += better * worse < 0
    assert (opposite, signs) == (102, {1: 299, -1: 170, 0: 149})


def test_every_right_and_wrong_solution_of_gsm8k_is_a_pair_or_a_duplicate(tmp_path: Path) -> None:
    imported = Imported(tmp_path, "gsm8k_solutions_dev600.jsonl")
    assert imported.examples.set_aside_counts.keys() == {"duplicate", "near-duplicate"}
    duplicates = imported.aside("duplicate", "near-duplicate", kind=2)
    assert len(imported.examples.pairs) + duplicates == 1_056
    assert {pair.source for pair in imported.examples.pairs} == {"votes"}


@pytest.mark.parametrize(
    ("name", "repeated"),
    [("llamafactory_dpo_en_demo.json", 5), ("llamafactory_dpo_zh_demo.json", 11)],
)
def test_each_preference_of_a_file_is_one_pair_or_a_duplicate(
    tmp_path: Path, name: str, repeated: int
) -> None:
    """Of two records with the same prompt no pairs are made across them."""
    examples = Imported(tmp_path, name).examples
    assert len(examples.pairs) == 300 - repeated
    assert examples.set_aside_counts == {"duplicate": repeated}
    assert (examples.unpaired, examples.demonstrations) == ([], [])


def test_each_lone_judgement_of_a_file_is_used(tmp_path: Path) -> None:
    """Two of the 150 good and 150 bad completions answer the same prompt, and so are a pair."""
    examples = Imported(tmp_path, "llamafactory_kto_en_demo.json").examples
    labels = Counter(example.label for example in examples.unpaired)
    assert (labels, len(examples.pairs)) == ({True: 149, False: 149}, 1)
    assert (len(examples.demonstrations), examples.set_aside) == (150, [])
