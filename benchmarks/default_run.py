"""The cost of a run: `python -m benchmarks.default_run [--recipe auto]` prints its seconds.

The embedded model is trained on 100 pairs and 300 lone thumbs of GSM8K's solutions, each known
right or wrong, as a job would on this machine. Pairs and thumbs are of different questions.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from platformdirs import user_cache_path

from engine.hardware import processor_name
from engine.home import Home
from engine.models.catalogue import resolve
from engine.start import kernel_cache
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Examples, Pair, TrainingExample, Unpaired, example_id
from feedback_store.formats import import_file
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from feedback_store.storage.database import Database, database_url
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tuning.jobs.events import JobEvent, StepDone
from tuning.recipe import read_recipe_with_origins
from tuning.train import run
from tuning.training_run import TrainingRun

FILE = "gsm8k_solutions_dev600.jsonl"


def main() -> None:
    """Train once and print the document."""
    arguments = _arguments()
    base = resolve("embedded", arguments.model_cache)
    recipe, origins = read_recipe_with_origins(arguments.recipe)
    steps: list[StepDone] = []

    def tell(event: JobEvent) -> None:
        if isinstance(event, StepDone):
            steps.append(event)
            print(f"{event.stage} {event.step}/{event.steps}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        examples = read_examples(home, arguments.data / FILE, arguments.pairs, arguments.thumbs)
        snapshot = open_snapshot(home.snapshots, freeze(home.snapshots, examples, last_event=1))
        job = TrainingRun(
            base,
            snapshot,
            recipe,
            origins,
            home.root / "job",
            home,
            kernel_cache(arguments.model_cache),
        )
        begun = time.monotonic()
        with redirect_stdout(io.StringIO()):
            run(job, tell)
        seconds = time.monotonic() - begun
    document = {
        "recipe": arguments.recipe,
        "pairs": len(examples.pairs),
        "thumbs": len(examples.unpaired),
        "steps": len(steps),
        "tokens": sum(step.tokens or 0 for step in _last_of_each_stage(steps)),
        "seconds": round(seconds, 1),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(document))


def read_examples(home: Home, file: Path, pairs: int, thumbs: int) -> Examples:
    """Import the file, and take pairs of some training questions and thumbs of others."""
    database = Database(database_url(home, None))
    import_file(FeedbackStore(database), file)
    training_set = TrainingSet(EvidenceReader(database), Curation(database))
    training_set.refresh(reestimate=True)
    _, found = training_set.load_examples()
    database.close()
    trained = [each for each in found.pairs if split_of(each.origin.conversation_id) == "train"]
    chosen = trained[:pairs]
    used = {each.origin.conversation_id for each in chosen}
    others = [each for each in trained if each.origin.conversation_id not in used]
    judged = [each for pair in others for each in _as_thumbs(pair)]
    return Examples(pairs=chosen, unpaired=_each_once(judged)[:thumbs])


def _as_thumbs(pair: Pair) -> list[Unpaired]:
    """A pair's two answers as lone judgements."""
    return [
        Unpaired(
            example_id("unpaired", (side,), "vote", pair.origin.user_ids),
            pair.prompt,
            side,
            label,
            "vote",
            pair.origin,
        )
        for side, label in ((pair.chosen, True), (pair.rejected, False))
    ]


def _each_once(examples: Sequence[Unpaired]) -> list[Unpaired]:
    once: dict[str, TrainingExample] = {each.id: each for each in examples}
    return [each for each in once.values() if isinstance(each, Unpaired)]


def _last_of_each_stage(steps: Sequence[StepDone]) -> list[StepDone]:
    return list({step.stage: step for step in steps}.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--thumbs", type=int, default=300)
    data = os.environ.get("BURNISH_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
