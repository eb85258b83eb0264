"""Questions for engines, what their streams say, and what transformers itself would say."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.fast import FastEngine
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from engine.request import Failed, Finished, Stream, StreamEvent, TextDelta
from engine.storage import folder_of
from tests.support.waiting import wait_until

AnyEngine = ReferenceEngine | FastEngine


class Adapters(NamedTuple):
    """Two good bundles for the tiny model."""

    root: Path
    a: str
    b: str

    def folder(self, digest: str) -> Path:
        return folder_of(self.root, digest)


# Ragged: 1 to 60 tokens; the tiny model ends its answers to the second and third by itself.
QUESTIONS = (
    "Tell me about the river and the sea, and what the old sailor said to the cat on the stone.",
    "sea",
    "Hello!",
    "",
    "What is the answer to this question?",
    "你好 👍",
)


LONG: dict[str, Any] = {
    "max_new_tokens": 1500,
    "ignore_eos": True,
}  # seconds of work for the tiny model


class TransformersPeer:
    """transformers' own greedy `generate`, one prompt at a time."""

    def __init__(self, base: BaseModel) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base.folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)

    def answer(self, question: str, max_new_tokens: int) -> tuple[str, int]:
        """The text and how many tokens it took."""
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = self.model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)[0]
        made = ids[prompt["input_ids"].shape[1] :]
        return self.tokenizer.decode(made, skip_special_tokens=True), len(made)

    def continued(self, question: str, begun: str, new_tokens: int) -> str:
        """A begun answer with so many greedy tokens after it."""
        prompt = self.tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        made = self.tokenizer.encode(begun)
        for _ in range(new_tokens):
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + made])).logits[0, -1]
            made.append(int(logits.argmax()))
        return str(self.tokenizer.decode(made, skip_special_tokens=True))

    def logprobs(self, question: str, completion: str, *, complete: bool = True) -> list[float]:
        """Log-probability of each token of a completion, from one plain forward pass."""
        made = self.tokenizer.encode(completion + ("<|im_end|>" if complete else ""))
        return self.logprobs_of_ids(question, made)

    def logprobs_of_ids(self, question: str, made: list[int]) -> list[float]:
        """The same of a completion's tokens."""
        prompt = self.tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        with torch.no_grad():
            logprobs = self.model(torch.tensor([prompt + made])).logits[0].log_softmax(-1)
        return [float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(made)]


def events_of(stream: Stream) -> list[StreamEvent]:
    """All events, after checking that one is terminal, comes last and holds all the text."""
    events = list(stream)
    terminal = [isinstance(event, Finished | Failed) for event in events]
    assert terminal == [False] * (len(events) - 1) + [True]
    assert list(stream) == []
    shown = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert events[-1].text == shown
    return events


def end_of(stream: Stream) -> StreamEvent:
    return events_of(stream)[-1]


@contextlib.contextmanager
def paused(engine: AnyEngine) -> Iterator[None]:
    """The engine's thread waits before its next step while the block runs."""
    resume, step = threading.Event(), engine.loop.step

    def wait_first() -> None:
        assert resume.wait(30)
        step()

    engine.loop.step = wait_first  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.loop.step = step  # type: ignore[method-assign]
        resume.set()


def rest_of(stream: Stream) -> StreamEvent:
    """The last event of a stream of which some have been read."""
    return list(stream)[-1]


def first_delta(stream: Stream) -> str:
    event = next(iter(stream))
    assert isinstance(event, TextDelta)
    return event.text


STORY = "The cat sat on the warm stone and looked at the water. " * 8  # more than 100 tokens


DRAWN: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "max_new_tokens": 40}


def load_both(engine: FastEngine, adapters: Adapters) -> None:
    for digest in (adapters.a, adapters.b):
        engine.load_adapter(digest, adapters.folder(digest))


def nothing_is_held(engine: FastEngine) -> bool:
    """Whether no sequence and no page is in use, now or within a moment."""
    wait_until(lambda: engine.active_streams == 0)
    return engine.runner.cache.used_pages == 0
