"""vLLM as a process in an environment of its own: `python -m ... JOB`.

JOB is a JSON file with `model` (a folder), `adapter` (a PEFT folder, or null), `questions` and
`max_tokens`; the greedy answers are written to `answers` in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Answer the questions of a job."""
    import vllm
    from vllm.lora.request import LoRARequest

    file = Path(sys.argv[1])
    job = json.loads(file.read_text())
    adapter = job["adapter"]
    model = vllm.LLM(
        job["model"],
        dtype="float32",
        max_model_len=512,
        max_num_seqs=4,
        enforce_eager=True,
        enable_lora=adapter is not None,
    )
    answered = model.chat(
        [[{"role": "user", "content": question}] for question in job["questions"]],
        vllm.SamplingParams(temperature=0, max_tokens=job["max_tokens"]),
        lora_request=None if adapter is None else LoRARequest("exported", 1, adapter),
        use_tqdm=False,
    )
    texts = [each.outputs[0].text for each in answered]
    file.write_text(json.dumps({**job, "answers": texts}))


if __name__ == "__main__":
    main()
