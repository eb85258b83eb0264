"""The reference pass with its cache: `python -m benchmarks.tuning_reference MODEL CACHE`.

Prints the seconds for 20 pairs with an empty cache, then for the same and two more.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from transformers import AutoModelForCausalLM
from trl.trainer.dpo_trainer import DataCollatorForPreference

from benchmarks.tuning_data import pairs
from engine.hardware import detect
from engine.models.catalogue import resolve
from engine.prompts.load import load_template_renderer
from engine.start import kernel_cache
from tuning.batch.budget import default_budget_tokens
from tuning.batch.collate import Packer, prompt_of_pair
from tuning.batch.forward import accept_layouts
from tuning.batch.reference import pair_log_probs
from tuning.kernels import choose_kernels
from tuning.reference_cache import ReferenceKey, look_up_references

FIRST, SECOND = 20, 22


def main() -> None:
    """Print one JSON object."""
    base = resolve(sys.argv[1], Path(sys.argv[2]))
    source, rows = pairs("gsm8k", load_template_renderer(base.folder))
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=detect().dtype)
    accept_layouts(model, choose_kernels(kernel_cache(Path(sys.argv[2]))).kernels)
    packer = Packer(DataCollatorForPreference(0), prompt_of_pair, default_budget_tokens())
    compute = partial(pair_log_probs, model, packer)
    compute(rows[-4:])  # warm up
    key = ReferenceKey(base.digest, None, "benchmark", str(detect().dtype))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (FIRST, SECOND):
            begun = time.perf_counter()
            look_up_references(Path(folder), key, rows[:count], compute)
            seconds.append(time.perf_counter() - begun)
    first, second = seconds
    found = {"first_seconds": first, "second_seconds": second, "pairs": [FIRST, SECOND]}
    print(json.dumps({**found, "data": source}))


if __name__ == "__main__":
    main()
