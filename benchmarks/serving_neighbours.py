"""Measurements of a stream beside something else: swaps of adapters, long prompts, other programs.

Part of `python -m benchmarks.serving`.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.adapters import publish_adapter
from benchmarks.serving_bench import RANK, Bench, prompt_of, story, writer
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError
from engine.fast import FastEngine
from engine.request import GenerationRequest, SamplingParams, TextDelta, collect

PEOPLE, SWAPS = 20, 30


def swaps(bench: Bench) -> None:
    """Measure the longest gap in a stream while adapters are activated; then many streams."""
    engine = bench.engine("int4")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        digests = [publish_adapter(root / "bundles", bench.base, RANK, n) for n in (1, 2)]
        slots = AdapterSlots(engine, bench.base, root / "bundles")
        for digest in digests:  # warm up
            slots.activate(digest)
        slots.activate(None)
        quiet = _gaps(engine, lambda: None)
        gaps = [
            _gaps(engine, partial(slots.activate, digest))
            for digest in [*digests, None] * bench.rounds
        ]
        step = statistics.median(quiet)
        longest = max(max(g) for g in gaps)
        typical = statistics.median(max(g) for g in gaps)
        bench.tell(
            "activation_longest_gap",
            "<= 2 steps",
            longest / step,
            met=longest <= 2 * step,
            step_seconds=step,
            median_longest_gap_in_steps=typical / step,
            longest_gap_without_activation_in_steps=max(quiet) / step,
            activations=len(gaps),
        )
        failed, mixed = _crowd(engine, slots, [None, *digests])
        bench.tell(
            "streams_failed_or_mixed",
            "0",
            failed + mixed,
            met=failed + mixed == 0,
            streams=PEOPLE,
            swaps=SWAPS,
        )
    engine.close()


def _gaps(engine: FastEngine, activate: Callable[[], None]) -> list[float]:
    """Return the seconds between tokens of a stream; `activate` is called in the middle."""
    request = GenerationRequest(
        story(1), SamplingParams(temperature=0, max_new_tokens=200, ignore_eos=True)
    )
    times: list[float] = []
    worker = threading.Thread(target=activate)
    for event in engine.submit(request):
        if isinstance(event, TextDelta):
            times.append(time.perf_counter())
            if len(times) == 50:
                worker.start()
    worker.join()
    return [after - before for before, after in itertools.pairwise(times[10:])]


def _crowd(
    engine: FastEngine, slots: AdapterSlots, versions: Sequence[str | None]
) -> tuple[int, int]:
    """Let 20 users chat during 30 swaps; returns the number of (failed, mixed) answers."""
    sampling = SamplingParams(temperature=0, max_new_tokens=32, ignore_eos=True)
    expected = {}
    for version in versions:
        with slots.hold(version):
            expected[version] = {
                n: collect(engine.submit(GenerationRequest(story(n), sampling, version))).text
                for n in range(PEOPLE)
            }
    over, failed, mixed = threading.Event(), [0], [0]
    count = threading.Lock()

    def person(number: int) -> None:
        while not over.is_set():
            try:
                with slots.pin_live() as version:
                    text = collect(
                        engine.submit(GenerationRequest(story(number), sampling, version))
                    ).text
                if text != expected[version][number]:
                    with count:
                        mixed[0] += 1
            except BurnishError as error:
                print(error, file=sys.stderr)
                with count:
                    failed[0] += 1

    people = [threading.Thread(target=person, args=(n,)) for n in range(PEOPLE)]
    for thread in people:
        thread.start()
    for swap in range(SWAPS):
        slots.activate(versions[(swap + 1) % len(versions)])
        time.sleep(0.2)
    over.set()
    for thread in people:
        thread.join()
    return failed[0], mixed[0]


def stall(bench: Bench) -> None:
    """Measure the longest gap in a stream while another prompt of 2,048 tokens is prefilled."""
    engine = bench.engine("int4", prefix_cache=False)
    long = prompt_of(engine, 2048)
    one = SamplingParams(temperature=0, max_new_tokens=1)
    quiet = _gaps(engine, lambda: None)

    def read_long_prompt() -> None:
        collect(engine.submit(GenerationRequest(long, one)))

    busy = _gaps(engine, read_long_prompt)
    step = statistics.median(quiet)
    ratio = statistics.median(busy[40:]) / step
    bench.tell(
        "gap_beside_a_long_prompt",
        "stated: <= 2 steps",
        ratio,
        met=ratio <= 2,
        step_seconds=step,
        longest_in_steps=max(busy) / step,
    )
    engine.close()


def busy_core(bench: Bench) -> None:
    """Compare the speed beside a process that keeps one core busy with that alone.

    With a thread for each of N cores, N + 1 threads share N cores: fair shares leave N / (N + 1).
    """
    engine = bench.engine("int4")
    fair = bench.threads / (bench.threads + 1)
    for streams in (1, 8):
        write = writer(engine, [story(number) for number in range(streams)])
        write()  # warm up
        alone, beside = [], []
        for _round in range(2 * bench.rounds):
            alone.append(write())
            with _one_core_busy():
                beside.append(write())
        ratio = statistics.median(alone) / statistics.median(beside)
        bench.tell(
            f"beside_a_busy_core_{streams}_streams",
            f"fair: {fair:.2f}",
            ratio,
            met=ratio >= 0.9 * fair,
            seconds={"alone": alone, "beside": beside},
        )
    engine.close()


@contextmanager
def _one_core_busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.2)  # until it has started
    try:
        yield
    finally:
        process.kill()
        process.wait()
