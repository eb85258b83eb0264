"""The comparison's handlers without a browser: the order in which a page's streams end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr

from app.service import Service
from app.ui.chat import ChatPage
from app.ui.compare import Comparisons
from app.ui.exchange import Page
from app.ui.session import Stops


def test_who_goes_on_waits_until_the_second_answer_draws_no_more(
    service: Service, model_says: Callable[[str], None]
) -> None:
    """Otherwise the panel's last picture could be drawn over the chat, and stay there."""
    request: Any = SimpleNamespace(session_hash="tab", request=SimpleNamespace(session={}))
    store, stops, page = service.workspace.store, Stops(max_per_person=2), Page()
    chat_page = ChatPage(service.chat, store, service.workspace.curation, stops)

    async def scene() -> None:
        model_says("Salt.")
        async for _ in chat_page.ask("What is the sea?", "plain", page, request):
            pass
        model_says("Water. " * 700)
        second = Comparisons(service.chat, store, stops).begin(page, request)
        await anext(second)

        leaving = asyncio.create_task(asyncio.to_thread(chat_page.put_away, page, request))
        await asyncio.sleep(0.5)
        assert not leaving.done()
        drawn = [shown async for shown in second]
        assert set(map(str, drawn[-1])) == {str(gr.skip())}  # nothing is drawn
        await asyncio.wait_for(leaving, 10)
        assert page.comparing is None

    asyncio.run(scene())
