"""The slowdown of a chat by a tuning job: `python -m benchmarks.chat_while_tuning`.

Measures the tokens a second of one chat stream alone, then beside a job, then alone again, in one
run; the figure is the ratio of the medians, whose goal is at least 0.6. The job is a real one: its
own process, its own priority, the default number of threads. The slowdown of the job by the chat is
reported as well. The last line of stdout is one JSON document, as in `benchmarks.serving`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_cache_path

from engine.fast import FastEngine
from engine.hardware import processor_name
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.request import GenerationRequest, SamplingParams, collect
from feedback_store.examples.types import Examples, Origin, Pair, Side, example_id
from feedback_store.snapshots.snapshot import freeze
from tuning.jobs.events import StepDone
from tuning.jobs.runner import JobRunner, default_threads
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe

ASKED = 0.6
NEW_TOKENS = 128
PAIRS = 60  # their references are computed before the first step
WITHOUT_CHAT_SECONDS = 15.0  # the job alone, to compare its speed
WORDS = ("salt", "water", "stone", "river", "bread", "sailor", "harbour", "lantern", "winter")


def main() -> None:
    """Run the benchmark and print its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--rounds", type=int, default=6, help="answers in each of the three parts")
    parser.add_argument("--threads", type=int, default=default_threads(), help="of the job")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    base = resolve(arguments.model, arguments.model_cache)
    engine = FastEngine(base, kernel_cache=arguments.model_cache / "kernels", quantization="int4")
    with tempfile.TemporaryDirectory() as home:
        jobs = JobRunner(Home(Path(home)), arguments.model_cache, threads=arguments.threads)
        figure = measure(lambda: answer(engine), jobs, Path(home), base, arguments.rounds)
    engine.close()
    document = {
        "figures": {"chat_while_tuning": {**figure, "job_threads": arguments.threads}},
        "processor": processor_name(),
        "processors": psutil.cpu_count(),
    }
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def measure(
    chat: Callable[[], float], jobs: JobRunner, home: Path, base: BaseModel, rounds: int
) -> dict[str, Any]:
    """Return the ratio and the measurements behind it."""
    chat()  # warm up
    alone = [chat() for _ in range(rounds)]
    job = jobs.start(
        base_name=base.name,
        base_digest=base.digest,
        snapshot=snapshot(home),
        recipe=endless(),
        recipe_origins={},
    )
    try:
        begun = first_step(jobs, job)
        time.sleep(WITHOUT_CHAT_SECONDS)
        joined = time.time()
        beside = [chat() for _ in range(rounds)]
        left = time.time()
    finally:
        jobs.stop(job)
    alone += [chat() for _ in range(rounds)]
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"chat_while_tuning: {ratio:.3g} (asked {ASKED})", file=sys.stderr, flush=True)
    return {
        "asked": f">= {ASKED}",
        "reached": ratio,
        "met": ratio >= ASKED,
        "chat_tokens_per_second_alone": alone,
        "chat_tokens_per_second_beside_the_job": beside,
        "job_steps_per_second_alone": rate(jobs, job, begun, joined),
        "job_steps_per_second_beside_the_chat": rate(jobs, job, joined, left),
    }


def answer(engine: FastEngine) -> float:
    """Return the tokens a second of one answer, from the question to its last token."""
    sampling = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    question = Message("user", "Tell me a long story about a lighthouse.")
    begun = time.monotonic()
    collect(engine.submit(GenerationRequest((question,), sampling)))
    return NEW_TOKENS / (time.monotonic() - begun)


def endless() -> Recipe:
    """Return the default recipe, with more epochs than the benchmark lasts."""
    return Recipe(sft=SftRecipe(epochs=0), dpo=DpoRecipe(epochs=50))


def first_step(jobs: JobRunner, job: str) -> float:
    """Wait for the job's first step; returns when it was reported."""
    for event in jobs.wait(job):
        if isinstance(event, StepDone) and event.at is not None:
            return event.at
    raise SystemExit(f"the job ended before its first step: {jobs.get(job).error}")


def rate(jobs: JobRunner, job: str, begun: float, ended: float) -> float:
    """Return the steps a second that the job reported between two times."""
    events = jobs.events(job)
    steps = [e for e in events if isinstance(e, StepDone) and begun < (e.at or 0) <= ended]
    return len(steps) / (ended - begun)


def snapshot(home: Path) -> str:
    """Publish a snapshot of synthetic pairs of about 80 tokens; returns its digest."""
    examples = Examples(pairs=[_pair(number) for number in range(PAIRS)])
    return freeze(Home(home).snapshots, examples, last_event=2)


def _pair(number: int) -> Pair:
    def side(name: str, first: int) -> Side:
        text = " ".join(WORDS[(first + i * (number + 1)) % len(WORDS)] for i in range(30))
        return Side(text, "", True, f"{name}-{number}", "sha256:base", None)

    chosen, rejected = side("good", number), side("bad", number + 5)
    question = f"Say thirty words, beginning with word {number}."
    return Pair(
        id=example_id("votes", (chosen, rejected), "votes", ("ann",)),
        prompt=(Message("user", question),),
        chosen=chosen,
        rejected=rejected,
        source="votes",
        origin=Origin(f"conversation-{number}", "hash", (1, 2), ("ann",)),
    )


if __name__ == "__main__":
    main()
