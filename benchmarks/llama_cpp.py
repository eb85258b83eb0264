"""Runs llama.cpp as a child process: `python -m benchmarks.llama_cpp GGUF SLOTS THREADS
CONTEXT`.

A line of input is a JSON object with `prompts` (token ids) and `new_tokens`; the line of output has
the seconds for all of them together.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from benchmarks.peers import MARK


def main() -> None:
    """Answer requests until the input ends."""
    import xllamacpp

    gguf, slots, threads, context_tokens = sys.argv[1], *map(int, sys.argv[2:])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.n_parallel = slots
    parameters.n_ctx = context_tokens * slots
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cache_ram_mib = 0  # prompts must be computed, not found in a cache
    parameters.verbosity = -1
    server: Any = xllamacpp.Server(parameters)
    for line in sys.stdin:
        command = json.loads(line)
        streams = [
            threading.Thread(target=_complete, args=(server, prompt, command["new_tokens"]))
            for prompt in command["prompts"]
        ]
        begun = time.perf_counter()
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()
        print(f"\n{MARK}{time.perf_counter() - begun}", flush=True)


def _complete(server: Any, prompt: list[int], new_tokens: int) -> None:
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": new_tokens,
            "max_tokens": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
    )
    if "error" in answer:
        raise RuntimeError(answer["error"])


if __name__ == "__main__":
    main()
