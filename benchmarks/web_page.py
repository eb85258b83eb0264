"""Latencies of the chat page for one person, for `benchmarks.web`.

Each part yields a figure's name, its value and the measurements behind it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.web_server import WebServer, stream_v1
from engine.messages import Message
from engine.prompts.modes import make_template
from feedback_store.formats.importing import IMPORTED_TEMPLATE
from feedback_store.records import ImportedAnswer, ImportedTurn
from feedback_store.storage.turns import new_id

Measured = Iterator[tuple[str, float, dict[str, Any]]]
LOADS, QUESTIONS, ROUNDS, THUMBS, SEARCHES = 5, 40, 5, 100, 60
SHORT_ANSWER_TOKENS = 12
CONVERSATIONS = 100_000
VOCABULARY = 20_000
PLAIN = make_template("plain", ())
READY = "#burnish[data-ready]"
# Resolves with the Unix time at which words of the newest answer are on the screen
FIRST_WORDS = """() => new Promise((resolve) => {
  const kinds = {subtree: true, childList: true, characterData: true};
  const watcher = new MutationObserver(() => {
    if (![...document.querySelectorAll('.turn .answer')].at(-1).textContent.trim()) return;
    watcher.disconnect();
    requestAnimationFrame(() => resolve((performance.timeOrigin + performance.now()) / 1000));
  });
  watcher.observe(document.getElementById('turns'), kinds);
  document.getElementById('send').click();
})"""
# Resolves with the seconds from a click until the page says that it was saved
PRESS_THUMB = """(name) => new Promise((resolve) => {
  const said = document.getElementById('announced');
  said.textContent = '';
  const begun = performance.now();
  const watcher = new MutationObserver(() => {
    watcher.disconnect();
    resolve((performance.now() - begun) / 1000);
  });
  watcher.observe(said, {childList: true, characterData: true, subtree: true});
  document.querySelector(`[data-does=${name}]`).click();
})"""
# Resolves with the seconds from a click in the side bar until the conversation is drawn
OPEN = """(id) => new Promise((resolve) => {
  const begun = performance.now();
  const watcher = new MutationObserver(() => {
    if (!document.querySelector('.turn[data-turn]')) return;
    watcher.disconnect();
    requestAnimationFrame(() => resolve((performance.now() - begun) / 1000));
  });
  watcher.observe(document.getElementById('turns'), {childList: true});
  document.querySelector(`.conversation[data-id="${id}"] a`).click();
})"""


def p95(values: Iterable[float]) -> float:
    """Return the 95th percentile."""
    return float(np.percentile(list(values), 95))


def page_ready(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure the seconds until the page is usable: with an empty cache, and reloaded."""
    first: list[float] = []
    second: list[float] = []
    for _number in range(LOADS):
        with browser.new_context() as context:
            page = context.new_page()
            for seconds in (first, second):
                begun = time.perf_counter()
                page.goto(server.url)
                page.wait_for_selector(READY)
                seconds.append(time.perf_counter() - begun)
    yield "first_load_seconds", statistics.median(first), {"each": first}
    yield "second_load_seconds", statistics.median(second), {"each": second}


def first_words(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure the time from the engine's first token, as stored, until words are on the screen."""
    with browser.new_context() as context:
        page = opened(context.new_page(), server)
        page.click("#open-advanced")
        page.fill("#sampling-max_new_tokens", str(SHORT_ANSWER_TOKENS))
        waited = []
        for number in range(QUESTIONS):
            page.fill("#question", f"Name {number + 2} things that are blue.")
            seen = page.evaluate(FIRST_WORDS)
            wait_for_end(page)
            ((made,),) = server.rows(
                "SELECT first_token_at FROM answers ORDER BY created_at DESC LIMIT 1"
            )
            waited.append(seen - made)
    yield (
        "first_words_after_first_token_p95_seconds",
        p95(waited),
        {"median": statistics.median(waited), "questions": QUESTIONS},
    )


def long_answer(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure bytes and time of 200 tokens after 50 turns, compared with `/v1`."""
    with browser.new_context() as context, httpx.Client(base_url=server.url) as client:
        page = opened(context.new_page(), server)
        ask(page, "Hello.")
        user = server.newest_user()
        conversation, messages = conversation_of(server, user, 50)
        page.goto(f"{server.url}/?c={conversation}")
        page.wait_for_selector(READY)
        question = "Tell me a long story about the lighthouse and the sailors."
        ask(page, question)
        messages.append({"role": "user", "content": question})
        stream_v1(client, messages)
        sent = bytes_received(page)
        on_page, by_v1, share, tokens = [], [], [], []
        for _round in range(ROUNDS):
            sent.clear()
            begun = time.perf_counter()
            page.click(".turn:last-child [data-does=regenerate]")
            page.wait_for_selector("#send[data-state=stop]")
            wait_for_end(page)
            on_page.append(time.perf_counter() - begun)
            query = "SELECT text, completion_tokens FROM answers ORDER BY created_at DESC LIMIT 1"
            ((text, made),) = server.rows(query)
            tokens.append(made)
            share.append(sum(sent.values()) / len(text.encode()))
            by_v1.append(stream_v1(client, messages))
    yield "bytes_per_byte_of_answer", statistics.median(share), {"each": share, "tokens": tokens}
    ratio = statistics.median(on_page) / statistics.median(by_v1)
    yield "time_over_v1", ratio, {"seconds_on_the_page": on_page, "seconds_by_v1": by_v1}


def thumb(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure the time from a thumb's click until the page shows that it is saved."""
    with browser.new_context() as context:
        page = opened(context.new_page(), server)
        ask(page, "Name a colour.")
        names = ("thumb_up", "thumb_down")
        seconds = [page.evaluate(PRESS_THUMB, names[number % 2]) for number in range(THUMBS)]
    yield "thumb_p95_seconds", p95(seconds), {"median": statistics.median(seconds)}


def long_conversation(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure the time from a click in the side bar until a conversation of 200 turns is drawn."""
    with browser.new_context() as context:
        page = opened(context.new_page(), server)
        ask(page, "Hello.")
        conversation, _messages = conversation_of(server, server.newest_user(), 200)
        seconds = []
        for _number in range(LOADS):
            page.goto(server.url)
            page.wait_for_selector(f'.conversation[data-id="{conversation}"]')
            seconds.append(page.evaluate(OPEN, conversation))
    yield "open_200_turns_seconds", statistics.median(seconds), {"each": seconds}


def search(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure a search through 100,000 conversations, from request to response in the page."""
    with browser.new_context() as context:
        page = opened(context.new_page(), server)
        ask(page, "Hello.")
        draw = random.Random(0)
        server.store.add_conversations(_many(draw), IMPORTED_TEMPLATE, server.newest_user())
        seconds, found = [], 0
        for _number in range(SEARCHES):
            page.fill("#search", " ".join(_word(draw) for _ in range(draw.choice([1, 1, 2]))))
            with page.expect_response(lambda response: "words=" in response.url) as response:
                pass
            found += len(response.value.json()["found"])
            seconds.append(response.value.request.timing["responseEnd"] / 1000)
    more = {"median": statistics.median(seconds), "found_per_search": found / SEARCHES}
    yield "search_100000_p95_seconds", p95(seconds), more


# Steps


def opened(page: Page, server: WebServer) -> Page:
    """Open the empty page and wait until it is ready."""
    page.goto(server.url)
    page.wait_for_selector(READY)
    return page


def ask(page: Page, question: str) -> None:
    """Ask and wait for the whole answer."""
    page.fill("#question", question)
    page.click("#send")
    page.wait_for_selector("#send[data-state=stop]")
    wait_for_end(page)


def wait_for_end(page: Page) -> None:
    """Wait until no answer is being written."""
    page.wait_for_selector("#send[data-state=send]", timeout=300_000)


def bytes_received(page: Page) -> dict[str, int]:
    """Count the bytes of each answer that is streamed to the page from now on, by request."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    streams: set[str] = set()
    received: dict[str, int] = {}

    def asked(event: dict[str, Any]) -> None:
        if "/chat/" in event["request"]["url"] and event["request"]["method"] == "POST":
            streams.add(event["requestId"])

    def ended(event: dict[str, Any]) -> None:
        if event["requestId"] in streams:
            received[event["requestId"]] = int(event["encodedDataLength"])

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", ended)
    return received


def conversation_of(server: WebServer, user: str, turns: int) -> tuple[str, list[dict[str, str]]]:
    """Store a conversation of short turns; returns its id and its messages."""
    conversation, parent = new_id(), None
    messages = [{"role": "system", "content": str(PLAIN.system)}]
    for number in range(turns):
        question = f"Tell me of the harbour, part {number}."
        text = f"On day {number} the ships lay still. The sailors stood on the quay and waited."
        turn = server.store.add_turn(
            user_id=user,
            question=question,
            template=PLAIN,
            conversation_id=conversation,
            parent_answer_id=parent,
        )
        parent = server.store.begin_answer(
            turn.id, base_digest="sha256:base", adapter_digest=None, sampling={}, seed=0
        )
        server.store.finish_answer(parent, status="done", text=text, complete=True)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    return conversation, messages


def _many(draw: random.Random) -> Iterator[ImportedTurn]:
    """Yield conversations of one turn, with words of a Zipf distribution."""
    for number in range(CONVERSATIONS):
        question = " ".join(_word(draw) for _ in range(12))
        answer = " ".join(_word(draw) for _ in range(40))
        prompt = (Message("user", question),)
        yield ImportedTurn(prompt, (ImportedAnswer(answer),), conversation=f"many-{number}")


def _word(draw: random.Random) -> str:
    number = int(VOCABULARY ** draw.random())
    return f"w{number:x}ord"
