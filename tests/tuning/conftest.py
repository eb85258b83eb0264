"""Pairs, snapshots and the tiny model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from feedback_store.examples.types import Examples, Origin, Pair, Side, example_id
from feedback_store.snapshots.snapshot import freeze
from tuning.kernels import PORTABLE, choose_kernels
from tuning.kernels.native import NativeTuningKernels
from tuning.kernels.portable import TuningKernels


def row(
    question: str,
    chosen: str,
    rejected: str,
    *,
    rejected_complete: bool = True,
    thoughts: tuple[str, str] = ("", ""),
    conversation: str = "",
) -> Pair:
    """A pair for one question, in a conversation named after it unless it is told."""
    good = Side(chosen, thoughts[0], True, f"good-{question}", "sha256:base", None)
    bad = Side(rejected, thoughts[1], rejected_complete, f"bad-{question}", "sha256:base", None)
    return Pair(
        id=example_id("votes", (good, bad), "votes", ("ann",)),
        prompt=(Message("user", question),),
        chosen=good,
        rejected=bad,
        source="votes",
        origin=Origin(conversation or question, "hash", (1, 2), ("ann",)),
    )


def snapshot_of(home: Path, pairs: int) -> str:
    """Freeze short pairs, each of a conversation of its own; returns the digest."""
    rows = [
        row(
            f"Say word {i}.",
            f"Word {i}.",
            f"No, never {i * 7}.",
            conversation=f"conversation-{i}",
        )
        for i in range(pairs)
    ]
    return freeze(Home(home).snapshots, Examples(pairs=rows), last_event=2)


@pytest.fixture(scope="session")
def tokenizer(tiny_base: BaseModel) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base.folder)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)


@pytest.fixture(scope="session")
def native(kernel_cache: Path) -> NativeTuningKernels:
    """The compiled kernels."""
    choice = choose_kernels(kernel_cache)
    if not isinstance(choice.kernels, NativeTuningKernels):
        assert "disagree" not in choice.reason and "refused" not in choice.reason, choice.reason
        pytest.skip(f"compiled kernels: {choice.reason}")
    return choice.kernels


@pytest.fixture(params=["native", "portable"])
def kernels(request: pytest.FixtureRequest) -> TuningKernels:
    """Either kernels, as a stage is given them."""
    if request.param == "portable":
        return PORTABLE
    found: NativeTuningKernels = request.getfixturevalue("native")
    return found
