"""The results of tuning on real data: `python -m benchmarks.results --json`.

Each experiment imports a file, freezes a snapshot, trains with a shipped recipe and scores held-out
answers before and after, once for each seed. After every run the document so far is printed on one
line of stdout, so that an interrupted command leaves its results; the last line is complete.
`--keep FILE...` copies the last document of each file into `docs/measured`, also of files with the
output of `burnish demo --json`, and makes the tables of `docs/results.md` from all that are kept.
`--markdown FILE...` makes them from files that are not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from benchmarks.results_figures import (
    Measure,
    answer_measures,
    judgement_measures,
    longer_wins,
    pair_measures,
)
from benchmarks.results_page import (
    MEASURED,
    PAGE,
    demo_document,
    keep_document,
    last_document,
    write_figures,
)
from benchmarks.results_runs import (
    Experiment,
    Kind,
    Material,
    Sizes,
    experiments,
    prepare,
    score_answers,
    score_preferences,
    train,
)
from engine.adapters.slots import AdapterSlots
from engine.fast import FastEngine
from engine.hardware import describe_processor
from engine.home import Home
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer
from engine.start import kernel_cache
from engine.storage import folder_of, read_manifest
from feedback_store.examples.types import Pair, TrainingExample

Document = dict[str, Any]
LIBRARIES = ("torch", "transformers", "trl", "peft")

# By kind of example: the function that scores a model, and the one that computes figures from the
# examples, the scores before, and the scores after (a list for each seed)
Score = Callable[[FastEngine, Sequence[Any], str | None], list[Any]]
Figures = Callable[[Sequence[Any], list[Any], list[list[Any]]], dict[str, Measure]]
YARDSTICKS: Mapping[Kind, tuple[Score, Figures]] = {
    "pairs": (score_preferences, pair_measures),
    "demonstrations": (score_answers, answer_measures),
    "unpaired": (score_answers, judgement_measures),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """The shared inputs of every experiment."""

    base: BaseModel
    engine: FastEngine
    data: Path
    homes: Path
    sizes: Sizes
    seeds: Sequence[int]
    kernel_cache: Path | None = None


def main() -> None:
    """Run the experiments, or keep their documents and write the page."""
    arguments = _arguments()
    for file in arguments.keep:
        keep_document(file, MEASURED)
    if arguments.keep or arguments.markdown is not None:
        files = arguments.markdown or sorted(MEASURED.iterdir())
        texts = [file.read_text("utf-8") for file in files]
        demos = [demo for text in texts if (demo := demo_document(text)) is not None]
        documents = [last_document(text) for text in texts if demo_document(text) is None]
        write_figures(PAGE, documents, demos)
        return
    sizes = Sizes(
        arguments.pairs, arguments.held_out, arguments.max_tokens, arguments.held_out_tokens
    )
    base = resolve(arguments.model, arguments.model_cache)
    kernels = kernel_cache(arguments.model_cache)
    # Exact on every processor, and many emulate bf16
    engine = FastEngine(base, kernel_cache=kernels, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as homes:
        bench = Bench(base, engine, arguments.data, Path(homes), sizes, arguments.seeds, kernels)
        chosen = {name: _chosen(experiments()[name], arguments.recipes) for name in arguments.only}
        document = measure_all(bench, chosen, each_run=arguments.json)
    engine.close()
    if not arguments.json:
        print(json.dumps(document, indent=2))


def measure_all(bench: Bench, chosen: Mapping[str, Experiment], *, each_run: bool) -> Document:
    """Run the experiments; with `each_run` print the document after each run."""
    begun = time.monotonic()
    document: Document = {"made_with": _surroundings(bench), "experiments": {}}
    for name, experiment in chosen.items():
        for found in measure(bench, name, experiment):
            document["experiments"][name] = found
            document["seconds"] = _since(begun)
            if each_run:
                print(json.dumps(document), flush=True)
    return document


def measure(bench: Bench, name: str, experiment: Experiment) -> Iterator[Document]:
    """Train with each recipe and seed; yields the experiment's document after each run."""
    _say(f"{name}: reading {experiment.file}")
    home = bench.homes / name
    renderer = load_renderer(bench.base.folder)
    material = prepare(experiment, home, bench.data, renderer, bench.sizes)
    slots = AdapterSlots(bench.engine, bench.base, Home(home).bundles)
    score, figures = YARDSTICKS[experiment.kind]
    found = _about(experiment, material)
    _say(f"{name}: {found['training']} to train on, {found['held_out']} held out")
    begun = time.monotonic()
    before = score(bench.engine, material.held_out, None)
    found["scoring_seconds"] = _since(begun)
    for label, recipe in experiment.recipes.items():
        after: list[list[Any]] = []
        row: Document = {"seeds": [], "training_seconds": []}
        found["recipes"][label] = row
        for seed in bench.seeds:
            _say(f"{name}: {label}, seed {seed}")
            begun = time.monotonic()
            settled = replace(recipe, seed=seed, max_sequence_tokens=bench.sizes.training_tokens)
            folder = home / "runs" / f"{len(found['recipes'])}-{seed}"
            bundle = train(bench.base, home, material, settled, folder, bench.kernel_cache)
            row["training_seconds"].append(_since(begun))
            manifest = read_manifest(folder_of(Home(home).bundles, bundle))
            row["trained_in"] = manifest["number_format"]["number_format"]
            with slots.hold(bundle):
                after.append(score(bench.engine, material.held_out, bundle))
            row["seeds"].append(seed)
            row["measures"] = figures(material.held_out, before, after)
            _say_measures(row["measures"])
            yield found


# Helpers


def _chosen(experiment: Experiment, labels: Sequence[str] | None) -> Experiment:
    """Return the experiment with those of its recipes whose labels are named; all for None."""
    kept = {
        label: recipe
        for label, recipe in experiment.recipes.items()
        if labels is None or label in labels
    }
    return replace(experiment, recipes=kept)


def _about(experiment: Experiment, material: Material) -> Document:
    """Return the document before any training."""
    held_out = material.held_out
    pairs = [example for example in held_out if isinstance(example, Pair)]
    return {
        "file": experiment.file,
        "kind": experiment.kind,
        "training": len(material.training),
        "training_conversations": _conversations(material.training),
        "held_out": len(held_out),
        "held_out_conversations": _conversations(held_out),
        "too_long": material.too_long,
        "longer_wins": longer_wins(pairs) if pairs else None,
        "recipes": {},
    }


def _conversations(examples: Sequence[TrainingExample]) -> int:
    return len({example.origin.conversation_id for example in examples})


def _surroundings(bench: Bench) -> Document:
    return {
        "model": Path(bench.base.name).name,
        "base_digest": bench.base.digest,
        **describe_processor(),
        "cores": os.cpu_count(),
        "scored_in": "fp32",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "sizes": asdict(bench.sizes),
    }


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)


def _say_measures(measures: Mapping[str, Measure]) -> None:
    for name, measure in measures.items():
        change = measure["difference"]
        _say(
            f"  {name}: {measure['before']:.4f} -> {measure['after'][-1]:.4f};"
            f" all seeds {change['estimate']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line, as it grows")
    keep = "copy the documents of these outputs into docs/measured, and write the page"
    parser.add_argument("--keep", nargs="+", type=Path, metavar="FILE", default=[], help=keep)
    written = "write the page, from the documents in docs/measured or from these"
    parser.add_argument("--markdown", nargs="*", type=Path, metavar="FILE", help=written)
    known = list(experiments())
    parser.add_argument("--only", nargs="+", default=known, choices=known)
    labels = sorted({label for each in experiments().values() for label in each.recipes})
    parser.add_argument("--recipes", nargs="+", choices=labels, help="by default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=64, help="examples to train on, at most")
    parser.add_argument("--held-out", type=int, default=60, help="examples to score, at most")
    parser.add_argument("--max-tokens", type=int, default=384, help="of an example to train on")
    parser.add_argument("--held-out-tokens", type=int, default=768, help="of one to score")
    data = os.environ.get("BURNISH_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
