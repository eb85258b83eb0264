"""The chat page's figures and goals, in Chromium on a real server: `python -m benchmarks.web`.

Starts a server on a fresh home with the embedded model; each figure is described where it is
measured. Browser and server share this machine's processors, so the page is slower than for people
with a machine of their own. The last line of stdout is one JSON document, as
in `benchmarks.serving`. Needs Chromium (`--chromium` names it) and about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_cache_path
from playwright.sync_api import Browser, sync_playwright

from benchmarks.web_load import idle_share, memory_growth, with_pages_open
from benchmarks.web_page import (
    first_words,
    long_answer,
    long_conversation,
    page_ready,
    search,
    thumb,
)
from benchmarks.web_server import WebServer, running_server
from engine.hardware import processor_name

Figures = dict[str, dict[str, Any]]
# Each figure's goal: "<" or ">=" and the bound, in the figure's own unit
ASKED: dict[str, tuple[str, float]] = {
    "first_load_seconds": ("<", 2),
    "second_load_seconds": ("<", 1),
    "first_words_after_first_token_p95_seconds": ("<", 0.06),
    "bytes_per_byte_of_answer": ("<", 5),
    "time_over_v1": ("<", 1.1),
    "tokens_per_second_with_50_pages": (">=", 0.9),
    "thumb_p95_seconds": ("<", 0.15),
    "open_200_turns_seconds": ("<", 0.5),
    "search_100000_p95_seconds": ("<", 0.2),
    "idle_share_of_a_core": ("<", 0.01),
    "idle_share_of_a_core_with_20_pages": ("<", 0.03),
    "memory_growth": ("<", 1.05),
}


def main() -> None:
    """Run the selected measurements and print their document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="some parts alone")
    parser.add_argument("--turns", type=int, default=2_000, help="of the memory's measurement")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    figures: Figures = {}
    with (
        tempfile.TemporaryDirectory() as home,
        running_server(Path(home), arguments.model, arguments.model_cache) as server,
        chromium(arguments.chromium) as browser,
    ):
        for name, part in PARTS.items():
            if arguments.only is None or name in arguments.only:
                for figure, reached, more in part(server, browser, arguments):
                    figures[figure] = judged(figure, reached, more)
                    print(f"{figure}: {reached:.4g}", file=sys.stderr, flush=True)
    document = {"figures": figures, "processor": processor_name(), "processors": psutil.cpu_count()}
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def judged(figure: str, reached: float, more: dict[str, Any]) -> dict[str, Any]:
    """Return a figure with its goal and whether it was met."""
    sign, bound = ASKED[figure]
    met = reached < bound if sign == "<" else reached >= bound
    return {"asked": f"{sign} {bound:g}", "reached": reached, "met": met, **more}


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Start a headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


Part = Callable[[WebServer, Browser, argparse.Namespace], Iterator[tuple[str, float, Any]]]
# The parts in the order in which they disturb each other least: the idle server first
PARTS: dict[str, Part] = {
    "idle": idle_share,
    "load": page_ready,
    "first words": first_words,
    "long answer": long_answer,
    "thumb": thumb,
    "pages": with_pages_open,
    "long conversation": long_conversation,
    "search": search,
    "memory": memory_growth,
}


if __name__ == "__main__":
    main()
