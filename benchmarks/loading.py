"""The peak memory of loading a checkpoint: `python -m benchmarks.loading`.

Prints one JSON document. For each checkpoint and quantization it has the growth of the process's
peak memory by loading, minus the largest file, as a multiple of the weights' bytes. Memory mapped
from a file counts like any other.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import torch
from platformdirs import user_cache_path
from transformers import LlamaConfig, LlamaForCausalLM

from engine.models.catalogue import resolve
from engine.models.checkpoint import open_checkpoint
from engine.models.families import architecture_of
from engine.models.kernel_selection import select_kernels
from engine.models.loading import WeightFormat, load_decoder, make_linear
from engine.models.memory import trim_heap
from engine.quantization import Quantization

QUANTIZATIONS: tuple[Quantization, ...] = ("int4", "int8")
ASKED = 1.3
# 540 million weights in four files, beside which the memory of Python itself is small
LARGE = LlamaConfig(
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=8,
    num_attention_heads=16,
    num_key_value_heads=16,
    tie_word_embeddings=False,
)
SHARD = "300MB"


def main() -> None:
    """Measure each checkpoint in a child process, or be that child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    parser.add_argument("--one", nargs="+", metavar=("QUANTIZATION FOLDER", "GGUF"))
    arguments = parser.parse_args()
    kernels = arguments.model_cache / "kernels"
    if arguments.one:
        quantization, folder, *gguf = arguments.one
        print(json.dumps(_load(quantization, Path(folder), *map(Path, gguf), kernels=kernels)))
        return
    base = resolve("embedded", arguments.model_cache)
    assert base.gguf is not None
    with tempfile.TemporaryDirectory() as temporary:
        _write_large(Path(temporary))
        checkpoints = {
            "embedded_gguf": [base.folder, base.gguf],
            "embedded_safetensors": [base.folder],
            "large_in_4_files": [Path(temporary)],
        }
        figures = {
            f"{name}_{quantization}": _in_a_process(arguments.model_cache, quantization, *files)
            for name, files in checkpoints.items()
            for quantization in QUANTIZATIONS
        }
    print(json.dumps(figures))


def _in_a_process(cache: Path, quantization: Quantization, *files: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.loading", "--model-cache", str(cache)]
    command += ["--one", quantization, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figure: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return figure


def _load(
    quantization: Quantization, folder: Path, gguf: Path | None = None, *, kernels: Path
) -> dict[str, object]:
    architecture = architecture_of(folder)
    choice = select_kernels("cpu", kernels, architecture.widths)
    weight_format = WeightFormat(quantization, "cpu", torch.float32, choice)
    checkpoint = open_checkpoint(folder, gguf)
    files = [gguf] if gguf else list(folder.glob("*.safetensors"))
    largest = max(file.stat().st_size for file in files)
    with torch.inference_mode():
        make_linear(torch.randn(64, 64), None, weight_format)  # loads libraries
        trim_heap()
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
        decoder = load_decoder(checkpoint, architecture, weight_format)
    ratio = (_peak() - before - largest) / decoder.weight_bytes
    return {
        "asked": ASKED,
        "reached": ratio,
        "met": ratio <= ASKED,
        "peak_bytes": _peak() - before,
        "largest_file_bytes": largest,
        "weight_bytes": decoder.weight_bytes,
    }


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def _write_large(folder: Path) -> None:
    model = LlamaForCausalLM._from_config(LARGE, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=SHARD)


if __name__ == "__main__":
    main()
