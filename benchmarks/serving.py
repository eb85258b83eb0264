"""The fast engine compared with llama.cpp and transformers: `python -m benchmarks.serving --json`.

Every timing alternates with its peer's, several times, and is reported as the ratio of the medians,
since machines are noisy. The last line of stdout is one JSON document: `figures` holds the goal,
the result and the measurements of each figure.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from benchmarks.adapters import make_adapter, publish_adapter
from benchmarks.peers import LlamaCpp, Transformers, installed
from benchmarks.profile import profile
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError
from engine.fast import FastEngine
from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.examples import Example, default_examples_text, read_examples
from engine.prompts.modes import make_template
from engine.quantization import Quantization
from engine.request import GenerationRequest, SamplingParams, TextDelta, collect

NEW_TOKENS = 64
PACKED: tuple[Quantization, ...] = ("int4", "int8")
PEOPLE, SWAPS = 20, 30
RANK = 16
FEW_SHOT_TOKENS = 678


@dataclass(frozen=True, slots=True)
class Bench:
    """The shared inputs of every measurement."""

    base: BaseModel
    kernel_cache: Path
    rounds: int
    threads: int
    peers: bool
    figures: dict[str, Any] = field(default_factory=dict)

    def engine(self, quantization: Quantization, **settings: Any) -> FastEngine:
        """Return a new engine."""
        return FastEngine(
            self.base, kernel_cache=self.kernel_cache, quantization=quantization, **settings
        )

    def tell(self, name: str, asked: str, reached: float, *, met: bool, **behind: Any) -> None:
        """Record a figure and print it."""
        self.figures[name] = {"asked": asked, "reached": reached, "met": met, **behind}
        print(f"{name}: {reached:.3g} (asked {asked})", file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmark and print its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    base = resolve(arguments.model, arguments.model_cache)
    bench = Bench(
        base,
        arguments.model_cache / "kernels",
        arguments.rounds,
        torch.get_num_threads(),
        peers=installed("xllamacpp") and base.gguf is not None,
    )
    for name in arguments.only:
        MEASURES[name](bench)
        gc.collect()
    document = {"figures": bench.figures, **_surroundings(bench)}
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


# Speed beside llama.cpp


def decode(bench: Bench) -> None:
    """Measure the tokens a second of 1, 8 and 16 concurrent streams; prompts of about 40 tokens."""
    engines = {kind: bench.engine(kind) for kind in PACKED}
    for streams, wanted in ((1, 1.5), (8, 3.0), (16, 5.0)):
        messages = [_story(number) for number in range(streams)]
        ours: dict[str, Callable[[], float]] = {
            kind: _writer(engine, messages) for kind, engine in engines.items()
        }
        with _llama(bench, streams) as llama:
            if llama is not None:
                ids = [engines["int4"].renderer.prompt(m) for m in messages]
                ours["llama.cpp"] = partial(llama.write, ids, NEW_TOKENS)
            seconds = in_turns(ours, bench.rounds)
        rates = {kind: streams * NEW_TOKENS / s for kind, s in seconds.items()}
        kinds = ("int4",) if streams == 1 else PACKED
        _tell_ratio(bench, f"decode_{streams}_streams", wanted, rates, kinds)
    for engine in engines.values():
        engine.close()


def prompts(bench: Bench) -> None:
    """Measure prompt tokens a second; no prompt is in the cache."""
    engine = bench.engine("int4", prefix_cache=False)
    with _llama(bench, 1) as llama:
        for tokens in (512, 2048):
            messages = _prompt_of(engine, tokens)
            ids = engine.renderer.prompt(messages)
            measured: dict[str, Callable[[], float]] = {
                "int4": _writer(engine, [messages], new_tokens=1)
            }
            if llama is not None:
                measured["llama.cpp"] = partial(llama.write, [ids], 1)
            seconds = in_turns(measured, bench.rounds)
            rates = {kind: len(ids) / s for kind, s in seconds.items()}
            _tell_ratio(bench, f"prompt_{tokens}_tokens", 5.0, rates, ("int4",))
    engine.close()


# Adapters


def adapters(bench: Bench) -> None:
    """Measure the cost of one adapter, and of four different ones in one batch."""
    engine = bench.engine("int4")
    with tempfile.TemporaryDirectory() as folder:
        digests = [f"sha256:{n:064x}" for n in range(4)]
        for n, digest in enumerate(digests):
            engine.load_adapter(digest, make_adapter(Path(folder) / str(n), bench.base, RANK, n))
    stories = [_story(number) for number in range(8)]
    for streams in (1, 8):
        seconds = in_turns(
            {
                "without": _writer(engine, stories[:streams]),
                "with": _writer(engine, stories[:streams], adapters=digests[:1]),
            },
            2 * bench.rounds,
        )
        ratio = seconds["without"] / seconds["with"]
        bench.tell(f"adapter_{streams}_streams", ">= 0.9", ratio, met=ratio >= 0.9, seconds=seconds)
    seconds = in_turns(
        {
            "one": _writer(engine, stories, adapters=digests[:1]),
            "four": _writer(engine, stories, adapters=digests),
        },
        2 * bench.rounds,
    )
    ratio = seconds["one"] / seconds["four"]
    bench.tell("four_adapters_in_8", ">= 0.75", ratio, met=ratio >= 0.75, seconds=seconds)
    engine.close()


def prefix(bench: Bench) -> None:
    """Measure the time to the first token of a few-shot prompt, cached and not cached."""
    cold, warm = bench.engine("int4", prefix_cache=False), bench.engine("int4")
    template = make_template("few-shot", _default_examples() * 4)
    messages = template.build((), "What is the capital of France?")
    while warm.count_prompt_tokens(messages) < FEW_SHOT_TOKENS:
        messages = (Message("system", messages[0].content + " Be kind."), *messages[1:])
    _writer(warm, [messages], new_tokens=1)()
    questions = iter(range(10_000))

    def ask(engine: FastEngine) -> float:
        last = Message("user", f"What is the capital of country number {next(questions)}?")
        return _writer(engine, [(*messages[:-1], last)], new_tokens=1)()

    seconds = in_turns({"cold": lambda: ask(cold), "warm": lambda: ask(warm)}, 2 * bench.rounds)
    ratio = seconds["warm"] / seconds["cold"]
    tokens = warm.count_prompt_tokens(messages)
    bench.tell(
        "first_token_cached", "<= 0.2", ratio, met=ratio <= 0.2, seconds=seconds, tokens=tokens
    )
    cold.close()
    warm.close()


def samples(bench: Bench) -> None:
    """Compare eight answers to one prompt (self-consistency) with eight single answers."""
    engine, alone = bench.engine("int4"), bench.engine("int4", prefix_cache=False)
    counter = iter(range(10_000))

    def message() -> tuple[Message, ...]:
        return _prompt_of(engine, 512, salt=next(counter))

    seconds = in_turns(
        {
            "together": lambda: _writer(engine, [message()] * 8, temperature=1.0)(),
            "one": lambda: _writer(alone, [message()], temperature=1.0)(),
        },
        bench.rounds,
    )
    ratio = seconds["together"] / (8 * seconds["one"])
    bench.tell("eight_samples", "a fraction", ratio, met=ratio < 1, seconds=seconds)
    engine.close()
    alone.close()


# Swaps


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
        _story(1), SamplingParams(temperature=0, max_new_tokens=200, ignore_eos=True)
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
                n: collect(engine.submit(GenerationRequest(_story(n), sampling, version))).text
                for n in range(PEOPLE)
            }
    over, failed, mixed = threading.Event(), [0], [0]
    count = threading.Lock()

    def person(number: int) -> None:
        while not over.is_set():
            try:
                with slots.pin_live() as version:
                    text = collect(
                        engine.submit(GenerationRequest(_story(number), sampling, version))
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
    long = _prompt_of(engine, 2048)
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


# Memory


def memory(bench: Bench) -> None:
    """Measure the resident memory after one answer: int4, and transformers in bf16."""
    resident = {kind: _resident(bench, kind) for kind in ("int4", "transformers", "imports")}
    ratio = resident["int4"] / resident["transformers"]
    bench.tell(
        "memory_int4",
        "< 0.5 of transformers bf16",
        ratio,
        met=ratio < 0.5,
        resident_bytes=resident,
        beyond_imports=(resident["int4"] - resident["imports"])
        / (resident["transformers"] - resident["imports"]),
    )


def _resident(bench: Bench, kind: str) -> int:
    command = [sys.executable, "-m", "benchmarks.resident", kind, bench.base.name]
    command += [str(bench.kernel_cache.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def where_time_goes(bench: Bench) -> None:
    """Profile a step by operation, with the layers called one by one."""
    bench.figures["profile"] = profile(bench.engine("int4"), (1, 8, 16))


def beside_transformers(bench: Bench) -> None:
    """Compare one stream with transformers' generate in its faster number format."""
    engine, dtype = bench.engine("int4"), detect().dtype
    peer = Transformers(bench.base.folder, dtype)
    ids = engine.renderer.prompt(_story(0))
    seconds = in_turns(
        {
            "int4": _writer(engine, [_story(0)]),
            "transformers": lambda: peer.write([ids], NEW_TOKENS),
        },
        bench.rounds,
    )
    ratio = seconds["transformers"] / seconds["int4"]
    bench.tell("decode_beside_transformers", "faster", ratio, met=ratio > 1, dtype=str(dtype))
    engine.close()


MEASURES: dict[str, Callable[[Bench], None]] = {
    "decode": decode,
    "prompts": prompts,
    "beside_transformers": beside_transformers,
    "adapters": adapters,
    "prefix": prefix,
    "samples": samples,
    "swaps": swaps,
    "stall": stall,
    "memory": memory,
    "profile": where_time_goes,
}


# Helpers


def in_turns(measured: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each; they alternate `rounds` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        for name, measure in measured.items():
            found = measure()
            if number:
                seconds[name].append(found)
    return {name: statistics.median(found) for name, found in seconds.items()}


def _writer(
    engine: FastEngine,
    messages: Sequence[tuple[Message, ...]],
    *,
    new_tokens: int = NEW_TOKENS,
    adapters: Sequence[str] = (),
    temperature: float = 0,
) -> Callable[[], float]:
    """Return a function that times concurrent streams; adapters are assigned round-robin."""

    def write() -> float:
        requests = [
            GenerationRequest(
                each,
                SamplingParams(
                    temperature=temperature, max_new_tokens=new_tokens, ignore_eos=True, seed=n
                ),
                adapters[n % len(adapters)] if adapters else None,
            )
            for n, each in enumerate(messages)
        ]
        begun = time.perf_counter()
        for stream in engine.submit_many(requests):
            collect(stream)
        return time.perf_counter() - begun

    return write


def _default_examples() -> tuple[Example, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.yaml"
        file.write_text(default_examples_text(), "utf-8")
        return read_examples(file)


def _story(number: int) -> tuple[Message, ...]:
    return (Message("user", f"Tell me a long story about lighthouse number {number}."),)


def _prompt_of(engine: FastEngine, tokens: int, salt: int = 0) -> tuple[Message, ...]:
    """Return a prompt of exactly `tokens` tokens, or one more."""
    words = f"{salt} Read this list and say which word is the odd one out:"
    message = (Message("user", words),)
    while engine.count_prompt_tokens(message) < tokens:
        missing = tokens - engine.count_prompt_tokens(message)
        words += " stone" * max(1, missing)
        message = (Message("user", words),)
    return message


@contextmanager
def _llama(bench: Bench, slots: int) -> Iterator[LlamaCpp | None]:
    if not bench.peers or bench.base.gguf is None:
        yield None
        return
    peer = LlamaCpp(bench.base.gguf, slots=slots, threads=bench.threads, context_tokens=4096)
    try:
        yield peer
    finally:
        peer.close()


def _tell_ratio(
    bench: Bench, name: str, wanted: float, rates: dict[str, float], kinds: Iterable[str]
) -> None:
    """Record the ratio of our best of `kinds` to llama.cpp."""
    best = max(rates[kind] for kind in kinds)
    if "llama.cpp" not in rates:
        bench.figures[name] = {"skipped": "xllamacpp is not installed", "tokens_per_second": rates}
        return
    ratio = best / rates["llama.cpp"]
    bench.tell(
        name, f">= {wanted} of llama.cpp", ratio, met=ratio >= wanted, tokens_per_second=rates
    )


def _surroundings(bench: Bench) -> dict[str, Any]:
    packages = ("torch", "transformers", "xllamacpp", "vllm")
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": bench.threads,
        "cores": os.cpu_count(),
        "versions": {
            name: importlib.metadata.version(name) if installed(name) else "not installed"
            for name in packages
        },
        "model": bench.base.name,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


if __name__ == "__main__":
    main()
