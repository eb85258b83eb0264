"""Several chains of thought and the answer that most of them lead to."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.answering.answer_options import AnswerOptions
from app.answering.answering import AnswerUpdate, RunningAnswer
from app.answering.self_consistency import Chains
from app.service import Service
from engine.errors import EngineFailure, InvalidInput, Overloaded
from engine.request import Failed, Finished, SamplingParams, StreamEvent, TextDelta
from tests.app.conftest import Played

WARM = SamplingParams(temperature=1, max_new_tokens=64, seed=7)


class Said:
    """A stream of events that are known beforehand."""

    def __init__(self, *events: StreamEvent) -> None:
        self._events = events
        self.cancelled = threading.Event()
        self.prompt_tokens = 9

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self._events)

    def cancel(self) -> None:
        self.cancelled.set()


def chain(text: str, reason: Any = "stop") -> Said:
    return Said(TextDelta(text), Finished(reason, text, 9, 4))


def end_of(chains: Chains) -> Finished | Failed:
    *_, end = chains
    assert isinstance(end, Finished | Failed)
    return end


def test_the_first_chain_of_the_winning_answer_is_the_answer() -> None:
    texts = (
        "A.\nAnswer: 41",
        "B.\nAnswer: 42.",
        "C.\nAnswer: 42",
        "D.\nAnswer: 41.0",
        "E.\nAnswer: 42",
    )
    chains = Chains([chain(text) for text in texts])
    assert end_of(chains) == Finished("stop", "B.\nAnswer: 42.", 9, 20)
    assert chains.votes == (("42", 3), ("41", 2))
    assert chains.ended == 5


def test_chains_that_gave_no_answer_have_no_vote() -> None:
    cut, stopped = chain("So far", "length"), chain("X.\nAnswer: 1", "cancelled")
    failed = Said(Failed(EngineFailure("broken"), ""))
    chains = Chains([stopped, cut, failed, chain("D.\nAnswer: 2")])
    end = end_of(chains)
    assert isinstance(end, Finished)
    assert (end.text, chains.votes) == ("D.\nAnswer: 2", (("2", 1),))


def test_where_no_chain_gave_an_answer_the_first_one_is_shown_without_votes() -> None:
    chains = Chains([chain("So far", "length"), chain("And so", "length")])
    assert end_of(chains) == Finished("length", "So far", 9, 8)
    assert chains.votes == ()


def test_chains_that_all_failed_or_were_stopped_end_as_the_first() -> None:
    failed = Failed(EngineFailure("broken"), "")
    assert end_of(Chains([Said(failed), Said(failed)])) == failed
    stopped = chain("So far", "cancelled")
    assert end_of(Chains([stopped, chain("And so", "cancelled")])) == Finished(
        "cancelled", "So far", 9, 4
    )


def test_a_long_answer_is_one_short_line_in_the_tally() -> None:
    chains = Chains([chain("A.\nAnswer: " + "word\n" * 40), chain("B.\nAnswer: 1")])
    end_of(chains)
    ((label, _), _) = chains.votes
    assert label == ("word " * 16).strip() + "…"
    assert len(label) == 80


def ask(service: Service, **more: Any) -> list[AnswerUpdate]:
    return list(asked(service, **more))


def asked(service: Service, **more: Any) -> RunningAnswer:
    options = AnswerOptions("self-consistency", **{"sampling": WARM, **more})
    return service.chat.ask("ann", "Add one and one.", options, conversation_id="c")


def test_one_answer_is_stored_with_what_the_chains_led_to(played: Played) -> None:
    played.engine.says = "One and one.\nAnswer: two"
    begun = len(played.engine.requests)
    *grown, last = ask(played.service, samples=3)
    asked = played.engine.requests[begun:]
    assert [request.sampling.seed for request in asked] == [7, 8, 9]
    assert len({request.messages for request in asked}) == 1
    assert (last.thought, last.text, last.status) == ("One and one.", "two", "done")
    assert (last.votes, last.chains) == ((("two", 3),), (3, 3))
    assert {update.text for update in grown} == {""}  # until all have voted there is no answer
    assert grown[0].chains == (0, 3)
    stored = played.service.workspace.store.answer(str(last.answer_id), "ann")
    assert (stored.text, stored.complete) == ("two", True)
    assert stored.sampling == {
        **replace(WARM).as_dict(),
        "stop": [],
        "logit_bias": [],
        "samples": 3,
        "votes": [["two", 3]],
    }


def test_another_answer_takes_as_many_chains(played: Played) -> None:
    played.engine.says = "One and one.\nAnswer: two"
    *_, last = ask(played.service, samples=4)
    begun = len(played.engine.requests)
    *_, again = played.service.chat.regenerate("ann", str(last.answer_id), sampling=WARM)
    assert len(played.engine.requests) - begun == 4
    assert again.votes == (("two", 4),)


def test_stop_ends_all_chains(played: Played) -> None:
    answer = asked(played.service, sampling=replace(WARM, max_new_tokens=3_000))
    for update in answer:
        if update.thought:
            answer.cancel()
    assert update.status == "stopped"
    assert update.text.startswith("w0")
    assert played.engine.active_streams == 0


def test_a_reader_who_goes_away_frees_all_chains(played: Played) -> None:
    long = replace(WARM, max_new_tokens=3_000)
    updates = iter(asked(played.service, sampling=long))
    next(updates)
    assert played.engine.active_streams == 5
    assert isinstance(updates, Generator)
    updates.close()
    assert played.engine.active_streams == 0


def test_chains_that_find_no_room_are_refused_together(played: Played) -> None:
    played.engine.stand_still()
    long = replace(WARM, max_new_tokens=3_000)
    waiting = [asked(played.service, samples=16, sampling=long) for _ in range(2)]
    with pytest.raises(Overloaded):  # 32 of 40 places are taken
        asked(played.service, samples=16, sampling=long)
    assert played.engine.active_streams == 32
    played.engine.go_on()
    for answer in waiting:
        answer.cancel()
        assert [*answer][-1].status == "stopped"


def test_chains_that_would_all_be_the_same_are_refused(played: Played) -> None:
    with pytest.raises(InvalidInput, match="choose a temperature above 0"):
        ask(played.service, sampling=replace(WARM, temperature=0))
