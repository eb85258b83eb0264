"""Readers see whole characters and never a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.detokenizer import Detokenizer

MIXED = (
    "你好，世界！ 👩\u200d👩\u200d👧 naïve 🏳️‍🌈 مرحبا 𝔘𝔫𝔦 don't — fin 😀😀.\n\n    return x  # ok"
)


def bytes_to_text(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are single bytes, the hardest case there is."""
    return bytes(ids).decode("utf-8", errors="replace")


def shown_pieces(
    decode: Any, ids: Sequence[int], stop: tuple[str, ...] = ()
) -> tuple[list[str], bool]:
    """What a reader gets to see, piece by piece, and whether a stop string ended it."""
    detokenizer = Detokenizer(decode, stop)
    pieces = []
    for token_id in ids:
        pieces.append(detokenizer.push(token_id))
        assert detokenizer.text == "".join(pieces)
        if detokenizer.stopped:
            break
    pieces.append(detokenizer.finish())
    assert detokenizer.text == "".join(pieces)
    return pieces, detokenizer.stopped


def test_a_character_split_over_tokens_is_shown_whole_or_not_at_all(smollm_tokenizer: Any) -> None:
    ids = smollm_tokenizer.encode(MIXED, add_special_tokens=False)
    assert any("\ufffd" in smollm_tokenizer.decode([i]) for i in ids), "nothing was split"
    pieces, _ = shown_pieces(smollm_tokenizer.decode, ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == smollm_tokenizer.decode(ids) == MIXED
    assert len([p for p in pieces if p]) > len(ids) / 2, "text was not shown as it came"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_any_text_arrives_whole_byte_by_byte(text: str) -> None:
    pieces, _ = shown_pieces(bytes_to_text, text.encode())
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")), st.data())
def test_what_follows_a_prefill_arrives_without_it(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    detokenizer = Detokenizer(bytes_to_text, prefill_ids=text[:cut].encode())
    pieces = [*map(detokenizer.push, text[cut:].encode()), detokenizer.finish()]
    assert "".join(pieces) == detokenizer.text == text[cut:]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_end_up_as_in_the_full_decode_but_for_a_broken_end(
    ids: list[int],
) -> None:
    pieces, _ = shown_pieces(bytes_to_text, ids)
    assert "".join(pieces) == bytes_to_text(ids).rstrip("\ufffd")


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text before whichever stop string is complete first, found the slow way."""
    for end in range(len(text) + 1):
        starts = [position for s in stop if (position := text[:end].find(s)) >= 0]
        if starts:
            return text[: min(starts)], True
    return text, False


pieces_of_text = st.text(st.sampled_from("ab<|>é👍"), max_size=30)
stop_strings = st.lists(st.text(st.sampled_from("ab<|>é👍"), min_size=1, max_size=4), max_size=3)


@given(pieces_of_text, stop_strings.map(tuple))
def test_text_ends_before_the_first_complete_stop_string(text: str, stop: tuple[str, ...]) -> None:
    pieces, stopped = shown_pieces(bytes_to_text, text.encode(), stop)
    assert ("".join(pieces), stopped) == cut(text, stop)


def test_a_stop_string_split_over_tokens_is_not_shown_even_in_part() -> None:
    pieces, stopped = shown_pieces(bytes_to_text, b"one\nUser: two", ("\nUser:",))
    assert stopped
    assert pieces == ["o", "n", "e", "", "", "", "", "", "", ""]


def test_what_only_began_like_a_stop_string_is_shown_once_it_differs() -> None:
    pieces, stopped = shown_pieces(bytes_to_text, b"a\nUs!", ("\nUser:",))
    assert not stopped
    assert pieces == ["a", "", "", "", "\nUs!", ""]


def test_what_was_held_back_is_shown_when_the_answer_ends() -> None:
    pieces, stopped = shown_pieces(bytes_to_text, b"a\nUs", ("\nUser:",))
    assert not stopped
    assert pieces == ["a", "", "", "", "\nUs"]


@pytest.mark.parametrize("stop", ["END", "two END", "D"])
def test_a_stop_string_inside_one_real_token_run_cuts_there(
    smollm_tokenizer: Any, stop: str
) -> None:
    text = "one two END three"
    ids = smollm_tokenizer.encode(text, add_special_tokens=False)
    pieces, stopped = shown_pieces(smollm_tokenizer.decode, ids, (stop,))
    assert stopped
    assert "".join(pieces) == text[: text.index(stop)]


def test_an_answer_cut_within_a_character_shows_no_replacement_character() -> None:
    from engine.prompts.detokenizer import Detokenizer

    detokenizer = Detokenizer(lambda ids: bytes(ids).decode("utf-8", "replace"))
    for byte in "a👍".encode()[:-1]:
        detokenizer.push(byte)
    detokenizer.finish()
    assert detokenizer.text == "a"


def test_the_first_stop_string_in_the_text_is_named() -> None:
    detokenizer = Detokenizer(bytes_to_text, ("three", "two"))
    shown = "".join(map(detokenizer.push, b"one two"))
    assert (shown, detokenizer.stopped_at) == ("one ", "two")
    assert Detokenizer(bytes_to_text, ("a",)).stopped_at == ""
