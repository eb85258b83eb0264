"""The wishes of the demo's scripted user."""

from __future__ import annotations

from itertools import combinations

import pytest

from app.demo.figures import comparison
from app.demo.scripted_user import WISHES, ScriptedUser, Shown, first_sentence, sentences
from engine.request import Finished

ONE = Shown("Salt lowers the freezing point.", ended=True, tokens=8)
TWO = Shown("It is salty. Rivers bring salt.", ended=True, tokens=10)
FOUR = Shown("One. Two. Three. Four.", ended=True, tokens=12)
CUT_OFF = Shown("It is salty. Rivers bring salt to", ended=False, tokens=160)
A_LIST = Shown("Try this:\n- salt\n- ice.", ended=True, tokens=9)


@pytest.mark.parametrize(
    ("answer", "short", "full"),
    [
        (ONE, True, False),
        (TWO, True, False),
        (FOUR, False, True),
        (CUT_OFF, False, False),
        (A_LIST, False, False),
        (Shown("", ended=True, tokens=0), False, False),
    ],
)
def test_a_wish_likes_what_comes_to_an_end_in_its_length(
    answer: Shown, short: bool, full: bool
) -> None:
    assert (WISHES["short"].likes(answer), WISHES["full"].likes(answer)) == (short, full)


def test_the_short_wish_prefers_the_shorter_answer_that_ended() -> None:
    ranked = sorted([CUT_OFF, FOUR, ONE, TWO], key=WISHES["short"].rank)
    assert ranked == [CUT_OFF, FOUR, TWO, ONE]


def test_a_user_of_the_opposite_opinion_turns_every_statement_round() -> None:
    wish = WISHES["short"]
    user, other = ScriptedUser(wish), ScriptedUser(wish, 1.0, "second-user")
    for answer in (ONE, TWO, FOUR, CUT_OFF, A_LIST):
        assert other.vote(answer) == -user.vote(answer)
    assert (user.choose(), other.choose()) == ("left", "right")


def test_the_full_wish_prefers_the_longer_one_of_three_sentences_and_more() -> None:
    rank = WISHES["full"].rank
    assert rank(FOUR) > rank(TWO) > rank(ONE) > rank(CUT_OFF)
    longer = Shown("One. Two. Three.", ended=True, tokens=40)
    assert rank(longer) > rank(FOUR)


def test_the_long_wish_contradicts_the_short_one_on_any_two_answers() -> None:
    short, long = WISHES["short"].rank, WISHES["long"].rank
    for one, other in combinations([ONE, TWO, FOUR, CUT_OFF], 2):
        assert (short(one) > short(other)) == (long(one) < long(other))


def test_sentences_are_counted_without_what_follows_the_last_full_stop() -> None:
    assert sentences(CUT_OFF.text) == ["It is salty."]
    assert first_sentence(CUT_OFF.text) == "It is salty."
    assert first_sentence("no end") is None


def finished(answer: Shown) -> Finished:
    return Finished(
        text=answer.text,
        reason="stop" if answer.ended else "length",
        prompt_tokens=5,
        completion_tokens=answer.tokens,
    )


def test_the_win_rate_counts_ties_as_half() -> None:
    before = [finished(a) for a in (CUT_OFF, TWO, ONE, CUT_OFF)]
    after = [finished(a) for a in (ONE, ONE, TWO, CUT_OFF)]
    wish = WISHES["short"]
    found = comparison(wish, wish.rank, before, after)
    assert (found["win_rate"]["wins"], found["win_rate"]["ties"], found["win_rate"]["losses"]) == (
        2,
        1,
        1,
    )
    assert found["win_rate"]["estimate"] == pytest.approx(0.625)
    assert (found["liked_before"], found["liked_after"]) == (2, 3)
    assert (found["complete_before"], found["complete_after"]) == (0.5, 0.75)
    by_thumb = comparison(wish, wish.thumb, before, after)
    assert (by_thumb["win_rate"]["wins"], by_thumb["win_rate"]["losses"]) == (1, 0)


@pytest.mark.parametrize(("share", "up"), [(0.0, 200), (1.0, 0), (0.25, 150)])
def test_a_share_of_the_statements_is_the_wrong_way_round(share: float, up: int) -> None:
    user = ScriptedUser(WISHES["short"], share)
    votes = [user.vote(ONE) for _ in range(200)]
    assert votes.count(1) == up
    choices = [user.choose() for _ in range(200)]
    assert choices.count("left") == up
