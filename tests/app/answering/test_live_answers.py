"""Answers that go on without a page, and pages that join them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from app.answering.answering import AnswerUpdate, RunningAnswer
from app.answering.live_answers import AnswerFactory, LiveAnswer, LiveAnswers
from engine.errors import BurnishError, InvalidText, Overloaded
from engine.request import Stream


class Typist:
    """Writes an answer letter by letter, as the test lets it."""

    def __init__(self, text: str, *, fails: Exception | None = None, answer_id: str = "a1") -> None:
        self._text = text
        self._id = answer_id
        self._fails = fails
        self._may_write = threading.Semaphore(0)
        self.stopped = False

    @property
    def letters(self) -> int:
        """How many there are in the text."""
        return len(self._text)

    def write(self, letters: int) -> None:
        for _ in range(letters):
            self._may_write.release()

    def begin(self) -> RunningAnswer:
        return RunningAnswer(cast(Stream, self), self._updates())

    def _updates(self) -> Iterator[AnswerUpdate]:
        yield AnswerUpdate(self._id, "", "", "streaming")
        for end in range(1, len(self._text) + 1):
            self._may_write.acquire()
            if self.stopped:
                yield AnswerUpdate(self._id, "", self._text[: end - 1], "stopped")
                return
            if self._fails:
                raise self._fails
            yield AnswerUpdate(self._id, "", self._text[:end], "streaming")
        yield AnswerUpdate(self._id, "", self._text, "done")

    def cancel(self) -> None:
        self.stopped = True
        self._may_write.release()


def started(begin: AnswerFactory, answers: LiveAnswers | None = None) -> LiveAnswer:
    return (answers or LiveAnswers(8)).start("ann", "c", begin)


async def read(live: LiveAnswer) -> list[tuple[str, str]]:
    return [(u.text, u.status) async for u in live.updates()]


def test_a_page_that_has_read_the_end_may_ask_again_at_once() -> None:
    answers = LiveAnswers(max_per_person=1)

    def slow_to_close() -> Iterator[AnswerUpdate]:
        yield AnswerUpdate("a1", "", "", "streaming")
        yield AnswerUpdate("a1", "", "abc", "done")
        time.sleep(0.2)

    def begin() -> RunningAnswer:
        return RunningAnswer(cast(Stream, None), slow_to_close())

    live = started(begin, answers)
    assert asyncio.run(read(live))[-1] == ("abc", "done")
    assert answers.find("a1", "ann") is None
    assert asyncio.run(read(started(begin, answers)))[-1] == ("abc", "done")


def test_a_page_that_joins_late_gets_what_is_there_and_what_follows() -> None:
    typist = Typist("abc")
    live = started(typist.begin)
    typist.write(2)

    async def scene() -> list[tuple[str, str]]:
        updates = live.updates()
        async for first in updates:
            if first.text == "ab":
                break
        typist.write(1)
        return [(u.text, u.status) async for u in updates]

    assert asyncio.run(scene())[-1] == ("abc", "done")


def test_any_number_of_pages_follow_one_answer() -> None:
    typist = Typist("abc")
    live = started(typist.begin)

    async def scene() -> list[list[tuple[str, str]]]:
        pages = [asyncio.create_task(read(live)) for _ in range(3)]
        await asyncio.sleep(0.01)
        typist.write(3)
        return await asyncio.gather(*pages)

    assert [page[-1] for page in asyncio.run(scene())] == [("abc", "done")] * 3


def drawn(typist: Typist, drawing_seconds: float, writing_seconds: float) -> list[str]:
    """Return the texts that a page draws if each update takes some time."""
    live = started(typist.begin)

    async def write() -> None:
        for _ in range(typist.letters):
            await asyncio.sleep(writing_seconds)
            typist.write(1)

    async def scene() -> list[str]:
        writing, shown = asyncio.create_task(write()), []
        async for update in live.updates():
            shown.append(update.text)
            await asyncio.sleep(drawing_seconds)
        await writing
        return shown

    return asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_quick_reader_sees_every_word_of_a_slow_answer() -> None:
    shown = drawn(Typist("xxxx"), 0, 0.1)
    assert {"x", "xx", "xxx", "xxxx"} <= set(shown)


def test_a_slow_reader_is_given_the_newest_and_always_the_last() -> None:
    shown = drawn(Typist("x" * 200), 0.05, 0.002)
    assert shown[-1] == "x" * 200
    assert len(shown) < 20
    assert shown == sorted(shown, key=len)


def test_the_end_waits_for_no_pause() -> None:
    typist = Typist("ab")
    live = started(typist.begin)
    typist.write(1)
    times: list[float] = []

    async def scene() -> None:
        async for update in live.updates():
            await asyncio.sleep(0.1)  # after which a pause of half a second follows
            times.append(time.monotonic())
            if update.text == "a":
                typist.write(1)

    asyncio.run(asyncio.wait_for(scene(), 20))
    assert times[-1] - times[-2] < 0.3


def test_an_answer_goes_on_when_nobody_looks_any_more() -> None:
    typist = Typist("abc")
    live = started(typist.begin)

    async def leave() -> None:
        async for _ in live.updates():
            return

    asyncio.run(leave())
    typist.write(3)
    assert asyncio.run(read(live))[-1] == ("abc", "done")


def test_only_stop_ends_an_answer_early_and_keeps_what_was_made() -> None:
    typist = Typist("abc")
    live = started(typist.begin)
    typist.write(1)
    while live.latest.text != "a":
        pass
    live.stop()
    assert asyncio.run(read(live))[-1] == ("a", "stopped")


def test_a_running_answer_is_found_by_its_own_person_until_its_end() -> None:
    answers, typist = LiveAnswers(8), Typist("a")
    live = started(typist.begin, answers)
    assert answers.find("a1", "ann") is live
    assert answers.find("a1", "bob") is None
    assert answers.of_conversation("c", "ann") == [live]
    assert answers.of_conversation("c", "bob") == []
    typist.write(1)
    asyncio.run(read(live))
    for _ in range(1000):
        if answers.find("a1", "ann") is None:
            break
        threading.Event().wait(0.005)
    assert answers.of_conversation("c", "ann") == []


def test_all_answers_of_a_person_are_stopped_and_have_ended_then() -> None:
    answers, typist, other = LiveAnswers(8), Typist("abc"), Typist("x", answer_id="a2")
    live = started(typist.begin, answers)
    bobs = answers.start("bob", "d", other.begin)
    answers.stop_all("ann")
    assert live.latest.status == "stopped"
    assert answers.of_conversation("c", "ann") == []
    assert bobs.latest.status == "streaming"
    answers.stop_all("nobody")
    other.write(1)
    asyncio.run(read(bobs))


def test_one_person_waits_for_so_many_answers_at_most() -> None:
    answers, typist = LiveAnswers(1), Typist("a")
    live = started(typist.begin, answers)
    with pytest.raises(Overloaded, match="1 of your questions"):
        started(Typist("b").begin, answers)
    assert answers.start("bob", "d", Typist("c").begin).id == "a1"  # another person may
    typist.write(1)
    asyncio.run(read(live))


def test_a_refused_question_is_told_to_whoever_asked_and_counts_no_more() -> None:
    def refuse() -> RunningAnswer:
        raise InvalidText("the message is empty")

    answers = LiveAnswers(1)
    for _ in range(2):
        with pytest.raises(InvalidText, match="empty"):
            started(refuse, answers)


def test_an_answer_that_is_lost_ends_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    typist = Typist("abc", fails=RuntimeError("what a person wrote"))
    live = started(typist.begin)
    typist.write(1)
    assert asyncio.run(read(live))[-1][1] == "failed"
    assert isinstance(live.latest.error, BurnishError)
    assert "what a person wrote" not in caplog.text + str(live.latest.error)
