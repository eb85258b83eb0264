"""The memory plan compared with measured peaks on a CPU: `python -m benchmarks.memory_plan --json`.

Each case trains two steps of the embedded model in a child process. The peak is the largest
resident memory during the steps, minus that before the weights were read; a tiny model is trained
first, so that the libraries have made their own allocations. There is no checkpointing on a CPU.
The plan counts memory in use, so glibc is set to return large freed blocks; with `--as-it-comes` it
keeps its defaults and holds more. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from engine.hardware import detect
from tuning.memory_plan import Load, shape_of, training_parts
from tuning.weight_formats import NumberFormat, Weights

WITHIN = 0.15
STEPS = 2
# mallopt(3), "MALLOC_MMAP_THRESHOLD_": freed blocks above it are returned to the system
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# Without bf16 units a product takes a hundred times as long, so few tokens are used
BF16_TOKENS = (512, 1024) if detect().dtype is torch.bfloat16 else (64, 128)
CASES: tuple[tuple[str, Weights, NumberFormat, int], ...] = (
    ("sft", "dense", "fp32", 512),
    ("sft", "dense", "fp32", 1024),
    ("dpo", "dense", "fp32", 512),
    ("sft", "int4", "fp32", 512),
    *(("sft", "dense", "bf16", tokens) for tokens in BF16_TOKENS),
    ("dpo", "dense", "bf16", BF16_TOKENS[0]),
)


def main() -> None:
    """Measure each case, or be the child process of one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cache", type=Path, default=user_cache_path("burnish") / "models")
    parser.add_argument("--as-it-comes", action="store_true", help="glibc keeps what is freed")
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(train(**json.loads(arguments.child))))
        return
    found = []
    for case in CASES:
        found.append(measure(arguments.model, arguments.cache, *case, arguments.as_it_comes))
        print(found[-1], file=sys.stderr, flush=True)
    print(json.dumps({"memory_plan": found, "asked": f"within {WITHIN:.0%}"}))


def measure(
    model: str,
    cache: Path,
    method: str,
    weights: Weights,
    number_format: NumberFormat,
    tokens: int,
    as_it_comes: bool = False,
) -> dict[str, Any]:
    """Measure a case in a child process; returns predicted and measured bytes and their ratio."""
    case = {
        "model": model,
        "cache": str(cache),
        "method": method,
        "weights": weights,
        "number_format": number_format,
        "tokens": tokens,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_plan", "--child", json.dumps(case)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | ({} if as_it_comes else GIVE_BACK),
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    load = Load(
        tokens, weights, number_format, pairs=method == "dpo", checkpointing=False, device="cpu"
    )
    predicted = sum(part.nbytes for part in training_parts(shape_of(answer["folder"]), load))
    ratio = predicted / answer["peak_bytes"]
    return {
        "method": method,
        "weights": weights,
        "number_format": number_format,
        "tokens": tokens,
        "predicted_bytes": predicted,
        "measured_bytes": answer["peak_bytes"],
        "ratio": ratio,
        "met": abs(ratio - 1) <= WITHIN,
    }


# The child


def train(
    model: str, cache: str, method: str, weights: Weights, number_format: NumberFormat, tokens: int
) -> dict[str, Any]:
    """Train and return the peak in bytes."""
    from engine.models.catalogue import resolve
    from engine.models.memory import trim_heap
    from engine.prompts.load import load_tokenizer

    base = resolve(model, Path(cache))
    tokenizer = load_tokenizer(base.folder)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny"
        _write_tiny(tiny, vocabulary=len(tokenizer))
        _steps(tiny, tokenizer, Path(folder), method, weights, number_format, tokens=64)
        gc.collect()
        trim_heap()
        before = _status("VmRSS")
        _steps(base.folder, tokenizer, Path(folder), method, weights, number_format, tokens)
    return {"peak_bytes": _status("VmHWM") - before, "folder": str(base.folder)}


def _steps(
    model: Path,
    tokenizer: Any,
    folder: Path,
    method: str,
    weights: Weights,
    number_format: NumberFormat,
    tokens: int,
) -> None:
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback

    from engine.models.catalogue import linear_shapes
    from tuning.kernels import choose_kernels
    from tuning.methods.dpo import DpoRecipe
    from tuning.methods.sft import SftRecipe
    from tuning.methods.stage import Stage
    from tuning.quantized import load_base
    from tuning.recipe import Recipe

    class FromHere(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        """Resets the peak after loading."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            Path("/proc/self/clear_refs").write_text("5")

    dtype = torch.bfloat16 if number_format == "bf16" else torch.float32
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_shapes(model)})
    config = LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")
    tuned = get_peft_model(load_base(model, weights, dtype, "cpu"), config)
    recipe = Recipe(sft=SftRecipe(epochs=1, batch_pairs=1), dpo=DpoRecipe(epochs=1, batch_pairs=1))
    kernels = choose_kernels(folder / "kernels").kernels
    stage = Stage(
        "sft", folder / f"{model.name}-{method}", 0, tokenizer, FromHere(), kernels=kernels
    )
    rows = Dataset.from_list([_row(method, tokens)] * STEPS)
    recipe.methods[method].trainer(tuned, rows, stage).train()


def _row(method: str, tokens: int) -> dict[str, list[int]]:
    """Return a row of `tokens`: a quarter is the prompt; a pair's answers share the rest."""
    prompt, rest = tokens // 4, tokens - tokens // 4
    if method == "sft":
        return {"input_ids": [9] * tokens, "completion_mask": [0] * prompt + [1] * rest}
    return {
        "prompt_ids": [9] * prompt,
        "chosen_ids": [9] * (rest // 2),
        "rejected_ids": [11] * (rest - rest // 2),
    }


def _write_tiny(folder: Path, vocabulary: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _status(name: str) -> int:
    """Return a memory figure of this process in bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
