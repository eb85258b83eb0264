"""The engines that ours is held against, each behind the same two questions: how long do these
prompts take to read, and how long do so many streams take to write.

Prompts are given as token ids, so that every engine computes the same tokens.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Prompt = Sequence[int]
MARK = "seconds: "  # before the one line of a reply that counts; the library prints too


class LlamaCpp:
    """llama.cpp's server (the xllamacpp wheel), in a process of its own: its threads and ours would
    slow each other down in one."""

    package = "xllamacpp"

    def __init__(self, gguf: Path, *, slots: int, threads: int, context_tokens: int) -> None:
        arguments = [str(gguf), str(slots), str(threads), str(context_tokens)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.llama_cpp", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.write([[1, 2, 3]], 4)

    def write(self, prompts: Sequence[Prompt], new_tokens: int) -> float:
        """Seconds for one stream a prompt, all at once, greedily, `new_tokens` each."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"prompts": [list(prompt) for prompt in prompts], "new_tokens": new_tokens}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return float(line.removeprefix(MARK))
        raise RuntimeError("llama.cpp's process ended")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Transformers:
    """transformers' own generate, in the number format that it is fastest in here."""

    package = "transformers"

    def __init__(self, folder: Path, dtype: Any) -> None:
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    def write(self, prompts: Sequence[Prompt], new_tokens: int) -> float:
        """Seconds for one answer after another."""
        import torch

        begun = time.perf_counter()
        for prompt in prompts:
            ids = torch.tensor([list(prompt)])
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
            )
        return time.perf_counter() - begun


def installed(package: str) -> bool:
    """Whether a peer is there to be measured."""
    return importlib.util.find_spec(package) is not None
