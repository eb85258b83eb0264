"""EleutherAI's evaluation harness (lm-eval) against the running server, by `local-completions`.

It has an environment of its own, since it pins packages: BURNISH_LM_EVAL names its Python. The task
is the test's own, over a file: the same harness scores the fast and the reference engine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.fast import FastEngine
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from tests.app.conftest import served, settings_of

NEEDED = 'lm-eval: pip install "lm-eval[api]" transformers; BURNISH_LM_EVAL may name another Python'
QUESTIONS = (
    ("The capital of France is", ["Paris", "Berlin", "Madrid"]),
    ("Water freezes and turns into", ["ice", "sand", "iron"]),
    ("The sun rises in the", ["east", "west", "north"]),
    ("Two plus two equals", ["four", "nine", "seven"]),
    ("A baby dog is called a", ["puppy", "kitten", "calf"]),
    ("The opposite of hot is", ["cold", "tall", "loud"]),
    ("Bees make", ["honey", "bread", "glass"]),
    ("The color of grass is", ["green", "purple", "red"]),
    ("You read a", ["book", "spoon", "shoe"]),
    ("The planet that we live on is", ["Earth", "Mars", "Venus"]),
    ("Fish live in the", ["water", "sky", "fire"]),
    ("After Monday comes", ["Tuesday", "Friday", "Sunday"]),
)
CHOICES = {
    "task": "burnish_choices",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
LAST_WORDS = {
    "task": "burnish_last_words",
    "output_type": "loglikelihood",
    "doc_to_text": "{{question}}",
    "doc_to_target": " {{choices[0]}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}


@pytest.fixture(scope="module")
def harness() -> str:
    """The Python that has lm-eval."""
    if given := os.environ.get("BURNISH_LM_EVAL"):
        return given
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip(f"needs {NEEDED}")
    return sys.executable


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks over one file."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = (json.dumps({"question": q, "choices": c}) for q, c in QUESTIONS)
    (folder / "rows.jsonl").write_text("\n".join(rows))
    source = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
    }
    for task in (CHOICES, LAST_WORDS):
        # JSON is YAML
        (folder / f"{task['task']}.yaml").write_text(json.dumps({**task, **source}))
    return folder


def evaluate(python: str, tasks: Path, base: BaseModel, url: str, out: Path) -> dict[str, Any]:
    """The harness's figures of both tasks."""
    model = {
        "model": "base",
        "base_url": f"{url}/v1/completions",
        "tokenizer": str(base.folder),
        "tokenizer_backend": "huggingface",
        "max_retries": "1",
    }
    arguments = {
        "--model": "local-completions",
        "--model_args": ",".join(f"{name}={value}" for name, value in model.items()),
        "--tasks": f"{CHOICES['task']},{LAST_WORDS['task']}",
        "--include_path": str(tasks),
        "--batch_size": "8",
        "--output_path": str(out),
    }
    command = [
        python,
        "-m",
        "lm_eval",
        "run",
        *(word for pair in arguments.items() for word in pair),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "hub")}
    run = subprocess.run(
        command, env={**os.environ, **offline}, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-3000:]
    [results] = out.rglob("results_*.json")
    figures: dict[str, Any] = json.loads(results.read_text())["results"]
    return figures


@pytest.mark.slow
def test_the_harness_finds_the_same_figures_over_either_engine(
    harness: str, tasks: Path, smollm: BaseModel, tmp_path: Path
) -> None:
    found: dict[str, dict[str, Any]] = {}
    for kind, engine in (("local", FastEngine), ("reference", ReferenceEngine)):
        (tmp_path / kind).mkdir()
        settings = settings_of(tmp_path / kind, smollm).model_copy(
            update={"engine": kind, "quantization": "none"}
        )
        with served(settings) as (service, url):
            assert isinstance(service.engine, engine)
            found[kind] = evaluate(harness, tasks, smollm, url, tmp_path / kind / "out")
    fast, reference = found["local"], found["reference"]
    choices, words = str(CHOICES["task"]), str(LAST_WORDS["task"])
    for metric in ("acc,none", "acc_norm,none"):
        assert fast[choices][metric] == reference[choices][metric]
    assert fast[choices]["acc,none"] > 0.5, "a model of 135M knows most of them"
    assert fast[words]["acc,none"] == reference[words]["acc,none"]
    assert fast[words]["perplexity,none"] == pytest.approx(
        reference[words]["perplexity,none"], rel=0.01
    )
