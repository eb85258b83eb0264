"""The engines that ours is compared with, behind one interface that times a set of streams.

Prompts are token ids, so that every engine computes the same tokens.
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
MARK = "seconds: "  # begins the line of the result; the library prints other lines


class LlamaCpp:
    """llama.cpp's server (the xllamacpp wheel), in a child process, since within one process its
    threads and ours would slow each other down."""

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
        """Return the seconds for greedy streams of `new_tokens`, one per prompt, all at once."""
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
    """transformers' `generate`, in its fastest number format on this machine."""

    package = "transformers"

    def __init__(self, folder: Path, dtype: Any) -> None:
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    def write(self, prompts: Sequence[Prompt], new_tokens: int) -> float:
        """Return the seconds for all answers, one after another."""
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
    """Return whether a peer's package is installed."""
    return importlib.util.find_spec(package) is not None
