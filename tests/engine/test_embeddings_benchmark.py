"""The benchmark of embeddings, on pairs whose order can be told by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.embeddings import bm25_scores, measure, recall
from tests.engine.conftest import StartFast

PAIRS = (
    ("Where does the river end?", "A river ends at the sea."),
    ("What does bread need?", "Bread needs flour, water and salt."),
    ("Who sat on the stone?", "The cat sat on the warm stone."),
)


def test_recall_counts_the_questions_whose_answer_is_among_the_first() -> None:
    ranks_1_2_6 = np.array(
        [
            [9, 1, 2, 3, 4, 5],
            [9, 8, 2, 3, 4, 5],
            [9, 8, 1, 3, 4, 5],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [1, 1, 1, 1, 1, 1],  # equal scores tell nothing
        ],
        dtype=np.float32,
    )
    assert recall(ranks_1_2_6) == {"recall@1": 0.5, "recall@5": 0.667, "recall@10": 1.0}


def test_bm25_finds_shared_words_and_nothing_for_function_words() -> None:
    assert bm25_scores(PAIRS).argmax(axis=1).tolist() == [0, 1, 2]
    assert not bm25_scores([("What is it?", "A river."), PAIRS[1]])[0].any()


def test_every_way_is_measured(start_fast: StartFast) -> None:
    found = measure(start_fast("int4"), PAIRS)
    assert found["pairs"] == 3
    assert found["bm25"]["recall@1"] == 1.0
    for way in ("embeddings", "embeddings, centred"):
        assert found[way]["recall@5"] == 1.0, "there are no more than three answers"
    assert found["tokens_per_second"] > 0
