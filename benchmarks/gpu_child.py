"""One part of `benchmarks.gpu` in a process of its own, so that peaks and failures stay apart.

`python -m benchmarks.gpu_child SPEC`: SPEC is a JSON object with part ("serve" or "loop"), model,
cache, weights and small. Prints one JSON document as the last line.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from engine import start
from engine.adapters.slots import AdapterSlots
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.quantization import Quantization
from engine.request import Engine, GenerationRequest, SamplingParams, ScoreRequest, collect
from feedback_store.examples.types import Examples, Origin, Pair, Side, example_id
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from tuning.batch.budget import default_budget_tokens
from tuning.jobs.events import JobEvent, NumberFormatChosen, StepDone
from tuning.memory_plan import Load, shape_of, training_parts
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.step_reporter import peak_memory_bytes
from tuning.train import run
from tuning.training_run import TrainingRun
from tuning.weight_formats import Weights

PROMPT = "Tell me about the river and the sea. "
WISHED, UNWISHED = "The river runs to the sea. ", "I would rather not say anything about it. "
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}


def main() -> None:
    """Run the part."""
    spec = json.loads(sys.argv[1])
    base = resolve(spec["model"], Path(spec["cache"]))
    part = {"serve": serve, "loop": loop}[spec["part"]]
    print(json.dumps(part(base, Path(spec["cache"]), spec["weights"], spec["small"])), flush=True)


def serve(base: BaseModel, cache: Path, weights: Weights, small: bool) -> dict[str, Any]:
    """Tokens a second of a prompt, of one stream and of eight, and the peak of memory."""
    before = _memory_in_use()
    engine = _engine(base, cache, weights)
    try:
        tokens = 16 if small else 128
        _rate(engine, 1, 4)  # compiles and allocates
        speeds = {f"streams_{count}": _rate(engine, count, tokens) for count in (1, 8)}
        prompt = _prompt_rate(engine, 8 if small else 64)
    finally:
        engine.close()
    return {"tokens_per_second": {"prompt": prompt, **speeds}, "peak_bytes": _peak() - before}


def loop(base: BaseModel, cache: Path, weights: Weights, small: bool) -> dict[str, Any]:
    """The whole loop: pairs, snapshot, QLoRA SFT and DPO, bundle, swap into the engine.

    The plan of memory is compared with the peak of each stage; the trained adapter is activated,
    and what a wished answer's log-probability was with and without it is told.
    """
    with tempfile.TemporaryDirectory() as root:
        home, watch = Home(Path(root) / "home"), _Watch()
        snapshot = freeze(home.snapshots, Examples(pairs=_pairs(small)), last_event=1)
        recipe = _recipe(weights, small)
        job = TrainingRun(
            base,
            open_snapshot(home.snapshots, snapshot),
            recipe,
            {},
            Path(root) / "job",
            home,
            start.kernel_cache(cache),
        )
        job.folder.mkdir()
        bundle = run(job, watch)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {
            "stages": watch.stages(base, recipe),
            "swap": _swap(base, cache, weights, home, bundle, 16 if small else 128),
        }


def _swap(
    base: BaseModel, cache: Path, weights: Weights, home: Home, bundle: str, tokens: int
) -> dict[str, Any]:
    """Activate the bundle in a running engine; log-probabilities of the wished answer."""
    engine = _engine(base, cache, weights)
    try:
        slots = AdapterSlots(engine, base, home.bundles)
        begun = time.perf_counter()
        slots.activate(bundle)
        seconds = time.perf_counter() - begun
        message = (Message("user", PROMPT),)
        scores = engine.score([ScoreRequest(message, WISHED, each) for each in (None, bundle)])
        return {
            "seconds": seconds,
            "tokens_per_second": _rate(engine, 8, tokens, bundle),
            "wished_log_probability": dict(
                zip(("base", "adapter"), (score.total for score in scores), strict=True)
            ),
        }
    finally:
        engine.close()


class _Watch:
    """Collects a run's events, with the peak of memory since the stage before."""

    def __init__(self) -> None:
        self._steps: dict[str, list[StepDone]] = defaultdict(list)
        self._peaks: dict[str, int] = {}
        self._number_format = "fp32"
        self._before = _memory_in_use()

    def __call__(self, event: JobEvent) -> None:
        """See `tuning.jobs.events.Report`."""
        if isinstance(event, NumberFormatChosen):
            self._number_format = event.number_format
        if isinstance(event, StepDone):
            if event.stage not in self._steps:
                _reset_peak()  # what loading took is not the stage's
            self._steps[event.stage].append(event)
            self._peaks[event.stage] = _peak() - self._before

    def stages(self, base: BaseModel, recipe: Recipe) -> dict[str, Any]:
        """The speed, losses, planned and measured bytes of each stage."""
        found = {}
        for stage, steps in self._steps.items():
            planned = self._planned(base, recipe, pairs=stage == "dpo")
            speeds = sorted(step.tokens_per_second or 0.0 for step in steps[1:] or steps)
            found[stage] = {
                "steps": len(steps),
                "loss": [steps[0].loss, steps[-1].loss],
                "tokens_per_second": speeds[len(speeds) // 2],
                "planned_bytes": planned,
                "peak_bytes": self._peaks[stage],
                "planned_to_peak": planned / max(1, self._peaks[stage]),
            }
        return found

    def _planned(self, base: BaseModel, recipe: Recipe, *, pairs: bool) -> int:
        """The plan's sum, without what CUDA itself is taken to need."""
        on_cuda = torch.cuda.is_available()
        load = Load(
            tokens=max(default_budget_tokens(), 2 * recipe.max_sequence_tokens),
            weights=recipe.weights,
            number_format="bf16" if self._number_format == "bf16" else "fp32",
            rank=recipe.adapter.rank,
            pairs=pairs,
            checkpointing=on_cuda,
            device="cuda" if on_cuda else "cpu",
        )
        return sum(part.nbytes for part in training_parts(shape_of(str(base.folder)), load))


def _recipe(weights: Weights, small: bool) -> Recipe:
    """QLoRA as the default recipe has it, one epoch of each stage."""
    return Recipe(
        sft=SftRecipe(epochs=1),
        dpo=DpoRecipe(epochs=1),
        weights=weights,
        max_sequence_tokens=256 if small else 1024,
    )


def _pairs(small: bool) -> list[Pair]:
    """Made-up pairs whose answers fill most of the length that the recipe allows."""
    count, repeats = (8, 8) if small else (48, 60)
    return [_pair(number, repeats + number % 3) for number in range(count)]


def _pair(number: int, repeats: int) -> Pair:
    texts = (WISHED * repeats, UNWISHED * (repeats // 2))
    good, bad = (Side(text, "", True, f"{number}-{text[0]}", "base", None) for text in texts)
    return Pair(
        id=example_id("votes", (good, bad), "votes", ("ann",)),
        prompt=(Message("user", f"{PROMPT}{number}"),),
        chosen=good,
        rejected=bad,
        source="votes",
        origin=Origin(f"conversation-{number}", "hash", (1, 2), ("ann",)),
    )


def _engine(base: BaseModel, cache: Path, weights: Weights) -> Engine:
    quantization: Quantization = "int8" if weights == "int8" else "int4"  # nf4 on CUDA
    return start.start_engine(
        base, quantization=quantization, model_cache=cache, max_rows=8, max_queue=32
    )


def _rate(engine: Engine, streams: int, tokens: int, adapter: str | None = None) -> float:
    """New tokens a second of all streams together."""
    sampling = SamplingParams(max_new_tokens=tokens, **GREEDY)
    request = GenerationRequest((Message("user", PROMPT),), sampling, adapter)
    begun = time.perf_counter()
    running = [engine.submit(request) for _ in range(streams)]
    made = sum(collect(stream).completion_tokens for stream in running)
    return made / (time.perf_counter() - begun)


def _prompt_rate(engine: Engine, repeats: int) -> float:
    """Prompt tokens a second."""
    sampling = SamplingParams(max_new_tokens=1, **GREEDY)
    request = GenerationRequest((Message("user", "Read on. " + PROMPT * repeats),), sampling)
    begun = time.perf_counter()
    read = collect(engine.submit(request)).prompt_tokens
    return read / (time.perf_counter() - begun)


def _memory_in_use() -> int:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return _resident()


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory_bytes()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
