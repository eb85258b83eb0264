"""Which rows share a pack, and where their tokens go."""

from __future__ import annotations

import pytest

from tuning.batch.plan import Completion, Segment, TrainingPrompt, lay_out, pack


def completion(*ids: int) -> Completion:
    return Completion(ids, (True,) * len(ids))


def test_no_pack_is_over_the_budget_and_no_row_is_lost() -> None:
    sizes = [7, 3, 9, 1, 4, 6]
    packs = pack(sizes, 10)
    assert sorted(i for items in packs for i in items) == [0, 1, 2, 3, 4, 5]
    assert all(sum(sizes[i] for i in items) <= 10 for items in packs)
    # 30 tokens fill three packs of ten exactly: 9 + 1, 7 + 3, 6 + 4
    assert packs == [[0, 1], [2, 3], [4, 5]]


def test_a_row_over_the_budget_has_a_pack_of_its_own_and_is_not_cut() -> None:
    assert pack([3, 50, 4], 10) == [[0, 2], [1]]


def test_the_prompt_is_laid_out_once_and_both_completions_continue_its_positions() -> None:
    layout = lay_out([TrainingPrompt((1, 2, 3), (completion(4, 5), completion(6)))])
    assert layout.input_ids == (1, 2, 3, 4, 5, 6)
    assert layout.position_ids == ((0, 1, 2, 3, 4, 3),)
    assert layout.segments == (Segment(0, 0, 0, 5), Segment(0, 3, 5, 6))


def test_each_completion_token_is_predicted_by_the_one_before_it() -> None:
    """The first of each completion by the prompt's last (place 2), whatever lies between."""
    layout = lay_out([TrainingPrompt((1, 2, 3), (completion(4, 5), completion(6)))])
    assert list(zip(layout.sources, layout.targets, strict=True)) == [(2, 4), (3, 5), (2, 6)]


def test_scores_go_where_trl_expects_them_chosen_rows_first() -> None:
    """Two pairs: rows 0 and 1 are the chosen ones, 2 and 3 the rejected ones; column c predicts
    token c + 1."""
    pairs = [
        TrainingPrompt((1, 2), (completion(3), completion(4))),
        TrainingPrompt((5,), (completion(6, 7), completion(8))),
    ]
    layout = lay_out(pairs)
    places = dict(zip(layout.targets, zip(layout.rows, layout.columns, strict=True), strict=True))
    assert places == {3: (0, 1), 4: (2, 1), 6: (1, 0), 7: (1, 1), 8: (3, 0)}


@pytest.mark.parametrize("before", [(), (TrainingPrompt((9, 9), (completion(9),)),)])
def test_a_token_that_nothing_precedes_is_not_scored(before: tuple[TrainingPrompt, ...]) -> None:
    layout = lay_out([*before, TrainingPrompt((), (completion(1, 2),))])
    assert layout.targets[-1] == 2
    assert 1 not in layout.targets


def test_only_the_tokens_that_count_are_scored() -> None:
    layout = lay_out([TrainingPrompt((), (Completion((1, 2, 3, 4), (False, False, True, False)),))])
    assert (layout.sources, layout.targets) == ((1,), (3,))
