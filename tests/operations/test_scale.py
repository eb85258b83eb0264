"""docs/scale.md says what its command computes, from figures that stand where it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import Figures, need_of, table_of

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_the_document_is_what_the_command_prints() -> None:
    assert table_of(Figures()) in (DOCS / "scale.md").read_text("utf-8")


def test_what_is_needed_follows_from_the_figures() -> None:
    """By hand: 1,000 users ask 4,000 times a day, a tenth of it in one hour, 90 tokens each."""
    figures = Figures(
        tokens_per_second=10,
        load=0.5,
        questions_a_day=4,
        tokens_an_answer=90,
        busy_hour=0.1,
        thumbs=0.09,
        bytes_a_turn=1_000,
        turn_growth=1,
        price_an_hour=1,
    )
    need = need_of(1_000, figures)
    assert need.questions_a_day == 4_000
    assert need.tokens == pytest.approx(10)
    assert need.servers == 2
    assert need.votes_a_day == pytest.approx(360)
    assert need.votes == pytest.approx(0.01)
    assert need.gigabytes_a_year == pytest.approx(1.46)
    assert need.dollars_a_month == pytest.approx(2 * 24 * 30.4)


def test_measured_figures_stand_in_the_documents_that_are_named() -> None:
    assert "**4.4x** (476)" in (DOCS / "serving.md").read_text("utf-8")
    feedback = (DOCS / "feedback.md").read_text("utf-8")
    assert all(f"**{figure}**" in feedback for figure in ("22 ms", "0.97 s", "341 MB"))
    assert "0.33 steps a second" in (DOCS / "tuning-jobs.md").read_text("utf-8")
