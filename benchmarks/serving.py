"""The fast engine compared with llama.cpp and transformers: `python -m benchmarks.serving --json`.

Every timing alternates with its peer's, several times, and is reported as the ratio of the medians,
since machines are noisy. The last line of stdout is one JSON document: `figures` holds the goal,
the result and the measurements of each figure.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from benchmarks.adapters import make_adapter
from benchmarks.peers import LlamaCpp, Transformers, installed
from benchmarks.profile import profile
from benchmarks.serving_bench import NEW_TOKENS, RANK, Bench, in_turns, prompt_of, story, writer
from benchmarks.serving_neighbours import busy_core, stall, swaps
from engine.fast import FastEngine
from engine.hardware import detect, processor_name
from engine.messages import Message
from engine.models.catalogue import resolve
from engine.prompts.examples import Example, default_examples_text, read_examples
from engine.prompts.modes import make_template
from engine.quantization import Quantization

PACKED: tuple[Quantization, ...] = ("int4", "int8")
FEW_SHOT_TOKENS = 678


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
        messages = [story(number) for number in range(streams)]
        ours: dict[str, Callable[[], float]] = {
            kind: writer(engine, messages) for kind, engine in engines.items()
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
            messages = prompt_of(engine, tokens)
            ids = engine.renderer.prompt(messages)
            measured: dict[str, Callable[[], float]] = {
                "int4": writer(engine, [messages], new_tokens=1)
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
    stories = [story(number) for number in range(8)]
    for streams in (1, 8):
        seconds = in_turns(
            {
                "without": writer(engine, stories[:streams]),
                "with": writer(engine, stories[:streams], adapters=digests[:1]),
            },
            2 * bench.rounds,
        )
        ratio = seconds["without"] / seconds["with"]
        bench.tell(f"adapter_{streams}_streams", ">= 0.9", ratio, met=ratio >= 0.9, seconds=seconds)
    seconds = in_turns(
        {
            "one": writer(engine, stories, adapters=digests[:1]),
            "four": writer(engine, stories, adapters=digests),
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
    writer(warm, [messages], new_tokens=1)()
    questions = iter(range(10_000))

    def ask(engine: FastEngine) -> float:
        last = Message("user", f"What is the capital of country number {next(questions)}?")
        return writer(engine, [(*messages[:-1], last)], new_tokens=1)()

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
        return prompt_of(engine, 512, salt=next(counter))

    seconds = in_turns(
        {
            "together": lambda: writer(engine, [message()] * 8, temperature=1.0)(),
            "one": lambda: writer(alone, [message()], temperature=1.0)(),
        },
        bench.rounds,
    )
    ratio = seconds["together"] / (8 * seconds["one"])
    bench.tell("eight_samples", "a fraction", ratio, met=ratio < 1, seconds=seconds)
    engine.close()
    alone.close()


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
    ids = engine.renderer.prompt(story(0))
    seconds = in_turns(
        {"int4": writer(engine, [story(0)]), "transformers": lambda: peer.write([ids], NEW_TOKENS)},
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
    "busy_core": busy_core,
    "memory": memory,
    "profile": where_time_goes,
}


# Steps


def _default_examples() -> tuple[Example, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.yaml"
        file.write_text(default_examples_text(), "utf-8")
        return read_examples(file)


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


def _surroundings(bench: Bench) -> dict[str, Any]:
    packages = ("torch", "transformers", "xllamacpp", "vllm")
    return {
        "processor": processor_name(),
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


if __name__ == "__main__":
    main()
