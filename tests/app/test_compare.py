"""The comparison's handlers without a browser: the order in which a page's streams end."""

from __future__ import annotations

import threading
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
    store, stops, page = service.workspace.store, Stops(), Page()
    chat_page = ChatPage(service.chat, store, service.workspace.curation, stops)
    model_says("Salt.")
    list(chat_page.ask("What is the sea?", "plain", page, request))
    model_says("Water. " * 700)
    second = Comparisons(service.chat, store, stops).begin(page, request)
    next(second)

    left = threading.Event()
    leaving = threading.Thread(target=lambda: (chat_page.put_away(page, request), left.set()))
    leaving.start()
    assert not left.wait(0.5)
    assert set(map(str, list(second)[-1])) == {str(gr.skip())}  # nothing is drawn
    assert left.wait(10)
    leaving.join()
    assert page.comparing is None
