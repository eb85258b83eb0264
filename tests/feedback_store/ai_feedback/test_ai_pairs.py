"""AI labels on disk: apart from people's, content-addressed, forgettable, and drawn by share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from engine.storage import folder_of
from feedback_store.ai_feedback.ai_pairs import (
    AiPair,
    ai_pair_id,
    draw_pairs,
    open_ai_pairs,
    publish_ai_pairs,
    rewrite_ai_pairs,
)
from feedback_store.examples.types import Origin, Side


def pair(number: int, user: str = "ann") -> AiPair:
    chosen = Side(f"Yes, {number}.", "a thought", True, f"good-{number}", "sha256:base", None)
    rejected = Side("Nein, é.", "", False, f"bad-{number}", "sha256:base", "sha256:adapter")
    return AiPair(
        ai_pair_id("judge", chosen, rejected),
        (Message("system", "Be brief."), Message("user", f"Is it {number}?")),
        chosen,
        rejected,
        "judge",
        Origin(f"c{number}", "sha256:template", (), (user,)),
    )


PAIRS = [pair(number) for number in range(8)]


def publish(root: Path, pairs: list[AiPair]) -> str:
    return publish_ai_pairs(
        root, pairs, snapshot="sha256:s", judge="judge", about={"outcomes": {"labelled": 8}}
    )


def test_what_was_published_is_read_back_whole(tmp_path: Path) -> None:
    found = open_ai_pairs(tmp_path, publish(tmp_path, PAIRS))
    assert list(found.pairs) == PAIRS
    assert found.manifest["snapshot"] == "sha256:s"
    assert found.manifest["judge"] == "judge"
    assert found.manifest["outcomes"] == {"labelled": 8}
    assert found.manifest["pairs"] == 8


def test_the_same_labels_are_the_same_set_and_others_are_not(tmp_path: Path) -> None:
    assert publish(tmp_path, PAIRS) == publish(tmp_path, PAIRS)
    assert publish(tmp_path, PAIRS[1:]) != publish(tmp_path, PAIRS)


def test_a_set_that_was_changed_is_refused(tmp_path: Path) -> None:
    digest = publish(tmp_path, PAIRS)
    with (folder_of(tmp_path, digest) / "ai_pairs.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(InvalidInput, match="differs from its sha256"):
        open_ai_pairs(tmp_path, digest)


def test_no_labels_are_no_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="labelled no pair"):
        publish(tmp_path, [])


def test_the_other_way_round_is_another_label() -> None:
    one = PAIRS[0]
    assert ai_pair_id("judge", one.chosen, one.rejected) == one.id
    assert ai_pair_id("judge", one.rejected, one.chosen) != one.id
    assert ai_pair_id("another", one.chosen, one.rejected) != one.id


def test_a_person_is_forgotten_in_every_set_that_holds_them(tmp_path: Path) -> None:
    both = publish(tmp_path, [pair(1, "ann"), pair(2, "bob")])
    ann_alone = publish(tmp_path, [pair(3, "ann")])
    bob_alone = publish(tmp_path, [pair(4, "bob")])
    replaced = rewrite_ai_pairs(tmp_path, lambda p: p.origin.user_ids != ("ann",))
    assert replaced.keys() == {both, ann_alone}
    assert replaced[ann_alone] is None
    rewritten = open_ai_pairs(tmp_path, str(replaced[both]))
    assert list(rewritten.pairs) == [pair(2, "bob")]
    assert rewritten.manifest["outcomes"] == {"labelled": 8}  # how it once came about
    assert open_ai_pairs(tmp_path, bob_alone).pairs == (pair(4, "bob"),)


# The share


def test_a_share_is_drawn_in_order_and_the_same_seed_draws_the_same() -> None:
    drawn = draw_pairs(PAIRS, 0.5, seed=3)
    assert len(drawn) == 4
    assert drawn == sorted(drawn, key=PAIRS.index)
    assert drawn == draw_pairs(PAIRS, 0.5, seed=3)
    assert len(set(map(str, (draw_pairs(PAIRS, 0.5, seed) for seed in range(10))))) > 1


def test_each_pair_is_drawn_as_often_as_its_share_says() -> None:
    """1,000 draws of 2 out of 8: each pair 250 times, give or take 5 times sqrt(1000 * 3/16)."""
    counts = Counter(p.id for seed in range(1000) for p in draw_pairs(PAIRS, 0.25, seed))
    assert all(abs(counts[p.id] - 250) < 5 * (1000 * 3 / 16) ** 0.5 for p in PAIRS)


def test_a_small_share_of_few_pairs_is_one_and_of_none_none() -> None:
    assert len(draw_pairs(PAIRS[:2], 0.1, seed=0)) == 1
    assert draw_pairs([], 0.1, seed=0) == []


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_an_ai_label_never_weighs_as_much_as_a_persons(share: float) -> None:
    with pytest.raises(InvalidInput, match="share"):
        draw_pairs(PAIRS, share, seed=0)


def test_a_pair_names_its_source_and_rests_on_no_event() -> None:
    assert PAIRS[0].source == "ai"
    assert PAIRS[0].as_dict()["origin"]["event_ids"] == ()
    assert replace(PAIRS[0], judge="other") != PAIRS[0]
