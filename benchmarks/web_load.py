"""The load of many pages on the server, for `benchmarks.web`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
from playwright.sync_api import Browser, Page

from benchmarks.web_page import Measured, opened, wait_for_end
from benchmarks.web_server import ANSWER_TOKENS, WebServer, stream_chat, stream_v1

IDLE_SECONDS = 30.0
IDLE_PAGES, OPEN_PAGES, STREAMING = 20, 50, 8
ROUNDS = 3
TURNS_A_PAGE = 20  # turns a page, in the measurement of memory
WARM_SHARE = 0.25  # the share of turns after which memory should stay constant
STORY = "Tell me a long story about a lighthouse."


def idle_share(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Measure the idle server's processor time, as a share of one core."""
    yield "idle_share_of_a_core", _share(server), {"seconds": IDLE_SECONDS}
    with ExitStack() as pages:
        for _number in range(IDLE_PAGES):
            opened(pages.enter_context(browser.new_context()).new_page(), server)
        yield "idle_share_of_a_core_with_20_pages", _share(server), {"seconds": IDLE_SECONDS}


def _share(server: WebServer) -> float:
    time.sleep(2)  # let earlier work finish
    begun, used = time.perf_counter(), server.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (server.cpu_seconds() - used) / (time.perf_counter() - begun)


def with_pages_open(server: WebServer, browser: Browser, _: argparse.Namespace) -> Measured:
    """Compare eight concurrent answers on pages, with 50 open, with eight bare streams.

    The same eight answers are also requested as pages do, without browsers, in turns with the bare
    streams: that is the server's own work for pages, and what people with a machine of their own
    cost it.
    """
    bare: list[float] = []
    without_browsers: list[float] = []
    for _round in range(ROUNDS):
        bare.append(_rate(server, _stream_bare))
        without_browsers.append(_rate(server, _stream_as_pages))
    with ExitStack() as contexts:
        pages = [
            opened(contexts.enter_context(browser.new_context()).new_page(), server)
            for _number in range(OPEN_PAGES)
        ]
        on_pages = [_rate_on_pages(server, pages[:STREAMING]) for _round in range(ROUNDS)]
    alone = statistics.median(bare)
    yield (
        "tokens_per_second_with_50_pages",
        statistics.median(on_pages) / alone,
        {
            "bare": bare,
            "without_browsers": without_browsers,
            "on_pages": on_pages,
            "share_without_browsers": statistics.median(without_browsers) / alone,
        },
    )


def _rate(server: WebServer, work: Callable[[WebServer, int], None]) -> float:
    begun = time.time()
    with ThreadPoolExecutor(STREAMING) as threads:
        list(threads.map(work, [server] * STREAMING, range(STREAMING)))
    return _tokens_since(server, begun)


def _stream_bare(server: WebServer, number: int) -> None:
    with httpx.Client(base_url=server.url) as client:
        stream_v1(client, [{"role": "user", "content": f"{STORY} {number}"}])


def _stream_as_pages(server: WebServer, number: int) -> None:
    with httpx.Client(base_url=server.url) as client:
        client.get("/chat/boot")
        stream_chat(client, f"{STORY} {number}", max_new_tokens=ANSWER_TOKENS)


def _rate_on_pages(server: WebServer, pages: list[Page]) -> float:
    begun = time.time()
    for number, page in enumerate(pages):
        page.fill("#question", f"{STORY} {number}")
        page.click("#send")
    for page in pages:
        wait_for_end(page)
    rate = _tokens_since(server, begun)
    for page in pages:
        page.click("#new-chat")
    return rate


def _tokens_since(server: WebServer, begun: float) -> float:
    """Return the tokens a second of the answers since a time, from first to last token."""
    query = (
        "SELECT SUM(completion_tokens), MIN(first_token_at), MAX(finished_at)"
        " FROM answers WHERE created_at >= ?"
    )
    ((tokens, first, last),) = server.rows(query, begun)
    return float(tokens / (last - first))


def memory_growth(server: WebServer, _: Browser, arguments: argparse.Namespace) -> Measured:
    """Measure the ratio of resident memory after many turns to that after a quarter of them.

    Each page asks 20 questions, leaves every tenth answer unfinished, and is replaced.
    """
    turns = arguments.turns
    resident, client = [], httpx.Client(base_url=server.url)
    for number in range(turns):
        if number % TURNS_A_PAGE == 0:
            client.close()
            client = httpx.Client(base_url=server.url)
            client.get("/chat/boot")
        stream_chat(client, f"Name {number} things.", leave=number % 10 == 9, max_new_tokens=8)
        if number in (int(turns * WARM_SHARE), turns - 1):
            resident.append(server.process.memory_info().rss)
    client.close()
    yield "memory_growth", resident[1] / resident[0], {"bytes": resident, "turns": turns}
