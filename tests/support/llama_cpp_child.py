"""llama.cpp (the xllamacpp wheel) as a process of its own: `python -m ... GGUF [LORA_GGUF]`.

A line of input is a JSON object: `{"tokenize": TEXT}`, or a body of chat completions, whose text is
answered, or with `logprobs` the likeliest first tokens. The answer is a line that begins with
`MARK`, since the library writes lines of its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx

MARK = "answer: "
CONTEXT_TOKENS = 1024


def main() -> None:
    """Answer requests until the input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    if len(sys.argv) > 2:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(sys.argv[2], 1.0)]
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    server: Any = xllamacpp.Server(parameters)
    _say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        _say(_answer(server, request))


def _say(value: Any) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()


def _answer(server: Any, request: dict[str, Any]) -> Any:
    if "tokenize" in request:
        body = {"content": request["tokenize"], "add_special": False, "parse_special": True}
        response = httpx.post(f"{server.listening_address}/tokenize", json=body, trust_env=False)
        return response.json()["tokens"]
    answered = server.handle_chat_completions({"temperature": 0, **request})
    if "choices" not in answered:
        raise RuntimeError(answered)
    choice = answered["choices"][0]
    if request.get("logprobs"):
        return choice["logprobs"]["content"][0]["top_logprobs"]
    return choice["message"]["content"]


if __name__ == "__main__":
    main()
