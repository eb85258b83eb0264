"""Updates of a running answer as a page gets them, and what a refused one leaves on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversation import AnswerUpdate, _largest
from app.service import Service
from app.ui.chat import ChatPage
from app.ui.exchange import Page
from app.ui.session import Stops, latest_updates
from engine.errors import EngineFailure


def said(text: str, *, last: bool = False) -> AnswerUpdate:
    return AnswerUpdate("id", "", text, "done" if last else "streaming")


def drawn(updates: Iterator[AnswerUpdate], drawing_seconds: float) -> list[str]:
    """What a page draws that takes so long for each update."""

    async def scene() -> list[str]:
        shown = []
        async for update in latest_updates(updates):
            shown.append(update.text)
            await asyncio.sleep(drawing_seconds)
        return shown

    return asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_quick_reader_sees_every_word_of_a_slow_answer() -> None:
    def slowly() -> Iterator[AnswerUpdate]:
        for count in range(1, 5):
            time.sleep(0.1)
            yield said("x" * count, last=count == 4)

    assert drawn(slowly(), 0) == ["x", "xx", "xxx", "xxxx"]


def test_a_slow_reader_is_given_the_newest_and_always_the_last() -> None:
    def quickly() -> Iterator[AnswerUpdate]:
        for count in range(1, 201):
            time.sleep(0.002)
            yield said("x" * count, last=count == 200)

    shown = drawn(quickly(), 0.05)
    assert shown[-1] == "x" * 200
    assert len(shown) < 20
    assert shown == sorted(shown, key=len)


def test_the_last_update_waits_for_no_pause() -> None:
    drawn_first = threading.Event()
    times: list[float] = []

    def two() -> Iterator[AnswerUpdate]:
        yield said("first")
        drawn_first.wait(10)
        yield said("last", last=True)

    async def scene() -> None:
        async for update in latest_updates(two()):
            await asyncio.sleep(0.1)  # after which a pause of 0.4 s follows
            times.append(time.monotonic())
            if update.text == "first":
                drawn_first.set()

    asyncio.run(asyncio.wait_for(scene(), 20))
    assert times[1] - times[0] < 0.3


def test_an_error_of_the_answer_is_the_readers() -> None:
    def broken() -> Iterator[AnswerUpdate]:
        yield said("half")
        raise EngineFailure("the engine stopped")

    with pytest.raises(EngineFailure):
        drawn(broken(), 0)


@given(st.integers(0, 70), st.integers(0, 70))
def test_the_largest_that_fits_is_found_in_few_tries(most: int, limit: int) -> None:
    tried: list[int] = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= limit

    assert _largest(fits, most) == min(most, limit)
    assert max(tried, default=0) <= 2 * limit + 1
    assert len(tried) <= 14


def test_a_refused_question_or_second_answer_leaves_the_page_as_it_was(
    service: Service, model_says: Callable[[str], None]
) -> None:
    request: Any = SimpleNamespace(session_hash="tab", request=SimpleNamespace(session={}))
    store, page = service.workspace.store, Page()
    chat = ChatPage(service.chat, store, service.workspace.curation, Stops(max_per_person=1))
    refusing = ChatPage(service.chat, store, service.workspace.curation, Stops(max_per_person=0))

    async def scene() -> None:
        model_says("Salt.")
        async for _ in chat.ask("What is the sea?", "plain", page, request):
            pass
        before = list(page.exchanges)
        refused = [shown async for shown in refusing.ask("And a tide?", "plain", page, request)]
        assert refused[-1][2] == "And a tide?"  # back in the box
        assert page.exchanges == before
        sent_twice = [shown async for shown in chat.ask("", "plain", page, request)]
        assert len(sent_twice) == 1
        assert page.exchanges == before
        refused = [shown async for shown in refusing.regenerate(page, request)]
        assert page.exchanges == before
        assert refused[-1][2] == gr.skip()
        assert page.exchanges[-1].answer == "Salt."

    asyncio.run(scene())
