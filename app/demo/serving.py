"""The demo's use of releases: answers, a swap under a running stream, a rollback."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from app.learning.tune import print_step
from app.service import Service
from deploy.gate.verdict import GateReport
from deploy.loop import RoundRequest
from deploy.releases.promotion import FOLLOW_SECONDS
from engine.errors import EngineFailure
from engine.prompts.modes import make_template
from engine.request import Finished, GenerationRequest, SamplingParams, TextDelta, collect
from tuning.recipe import Recipe

AT_ONCE = 32
MEASURED = "the demo measures what it has trained, whatever the gate says"
STREAM_TOKENS = 512  # some seconds of a fast machine: the stream outlasts the swap


def answers_of_live(
    service: Service, questions: Sequence[str], sampling: SamplingParams
) -> list[Finished]:
    """Generate answers in the plain mode with the live release, in batches; seeds count up."""
    template = make_template("plain", (), service.workspace.settings.system_prompt)
    answers: list[Finished] = []
    with service.slots.pin_live() as adapter:
        for start in range(0, len(questions), AT_ONCE):
            some = questions[start : start + AT_ONCE]
            requests = [
                GenerationRequest(
                    template.build([], question),
                    replace(sampling, seed=sampling.seed + number),
                    adapter,
                )
                for number, question in enumerate(some, start)
            ]
            answers += [collect(stream) for stream in service.engine.submit_many(requests)]
    return answers


def tune_and_judge(
    service: Service, recipe: Recipe, origins: dict[str, str]
) -> tuple[str, str, GateReport]:
    """Run a round that promotes nothing; returns (snapshot, bundle, gate's report)."""
    request = RoundRequest(recipe, origins, forced=True, promotes=False, actor="demo")
    result = service.workspace.loop.run(service.engine, service.slots, request, print_step)
    if result.snapshot is None or result.bundle is None or result.report is None:
        raise EngineFailure(f"the demo's round ended without a release: {result.reason}")
    return result.snapshot, result.bundle, result.report


def swap(service: Service, bundle: str, *, force: bool) -> dict[str, Any]:
    """Promote a bundle while a stream runs; returns how the stream was affected."""
    template = make_template("plain", (), service.workspace.settings.system_prompt)
    messages = template.build([], "Tell me a long story about a lighthouse.")
    greedy = SamplingParams(temperature=0, max_new_tokens=STREAM_TOKENS)
    request = GenerationRequest(messages, replace(greedy, ignore_eos=True))
    alone = collect(service.engine.submit(request))
    stream = service.engine.submit(request)
    times: list[float] = []
    ending: list[object] = []

    def read() -> None:
        for event in stream:
            if isinstance(event, TextDelta):
                times.append(time.monotonic())
            else:
                ending.append(event)

    reader = threading.Thread(target=read)
    reader.start()
    while len(times) < 8:
        time.sleep(0.01)
    promoted_at = time.monotonic()
    live = service.workspace.releases.promote(bundle, force=force, reason=MEASURED)
    service.workspace.releases.wait_until_served(live)
    swapped_at = time.monotonic()
    still_running = reader.is_alive()
    reader.join()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return {
        "stream_was_running": still_running,
        "stream_failed": not isinstance(ending[0], Finished),
        "stream_text_unchanged": isinstance(ending[0], Finished) and ending[0].text == alone.text,
        "median_gap_seconds": round(statistics.median(gaps), 3),
        "longest_gap_seconds": round(max(gaps), 3),
        "seconds_until_live": round(swapped_at - promoted_at, 2),
        "live_is_new": service.slots.live == bundle,
    }


def roll_back(service: Service) -> None:
    """Roll back to the release before, and wait until the new one's adapter is gone."""
    live = service.workspace.releases.rollback()
    service.workspace.releases.wait_until_served(live)
    time.sleep(FOLLOW_SECONDS)  # by now the last pin, and with it the adapter, is gone
