"""llama.cpp (the xllamacpp wheel) in a child process, greedy, as a consumer of exports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama_cpp_child import MARK


class LlamaCppModel:
    """A GGUF file, and maybe a LoRA file, that llama.cpp has loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self, question: str, max_tokens: int) -> str:
        """The greedy answer to one message, by the file's own chat template and tokenizer."""
        messages = [{"role": "user", "content": question}]
        return str(self._ask({"messages": messages, "max_tokens": max_tokens}))

    def first_tokens(self, question: str) -> dict[int, float]:
        """The likeliest five tokens to begin the answer with, and their log-probabilities."""
        messages = [{"role": "user", "content": question}]
        more = {"max_tokens": 1, "logprobs": True, "top_logprobs": 5}
        found = self._ask({"messages": messages, **more})
        return {each["id"]: each["logprob"] for each in found}

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, with control tokens read as such."""
        return list(self._ask({"tokenize": text}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:
        """The next line of the child's that is an answer."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise AssertionError(f"llama.cpp ended with {self._process.wait()}")


@contextmanager
def llama_cpp(gguf: Path, lora: Path | None = None) -> Iterator[LlamaCppModel]:
    """Load a file; the test is skipped where the wheel is not installed."""
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: the wheel xllamacpp is not installed")
    files = [str(gguf)] if lora is None else [str(gguf), str(lora)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.llama_cpp_child", *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        model = LlamaCppModel(process)
        model.read()
        yield model
    finally:
        process.kill()
        process.wait()
