"""The whole loop on a CUDA device in one command: `python -m benchmarks.gpu --json`.

At most eight minutes: nf4 and int8 serving, then QLoRA SFT and DPO of the embedded and of a random
model of 1.2 billion weights (the shape of Llama 3.2 1B), the swap of the trained adapter into the
engine, the memory plan beside the measured peak, tokens a second. Each part is a process of its
own (`benchmarks.gpu_child`); one that fails or finds no time left is told and the others go on.
`--device cpu --small` runs the same code on a processor with few tokens and a random model of a
few thousand weights: it shows that the command works, and its figures mean nothing. `--page FILE`
writes the document as a readable page. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path

SECONDS = 480
RANDOM = "random 1B"
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the benchmark."""

    part: Literal["serve", "loop"]
    model: str  # "embedded", or `RANDOM`
    weights: str  # as a recipe names them

    @property
    def name(self) -> str:
        """Its name in the table."""
        what = "serving" if self.part == "serve" else "loop"
        return f"{what}, {self.model}, {self.weights}"


def parts(device: Device) -> tuple[Part, ...]:
    """The parts in the order in which they run, the most telling first.

    A processor takes its own 4 bits, since bitsandbytes is slow there.
    """
    four: str = "nf4" if device == "cuda" else "int4"
    models = ("embedded", RANDOM)
    return (
        *(Part("loop", model, four) for model in models),
        *(Part("serve", model, weights) for model in models for weights in (four, "int8")),
    )


def main() -> None:
    """Run all parts and print their table and the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document alone")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="few tokens, and a tiny random model")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--embedded", default="embedded", help="the real model: any name or folder")
    parser.add_argument("--cache", type=Path, default=user_cache_path("burnish") / "models")
    parser.add_argument("--page", type=Path, help="write the document as a page of Markdown")
    arguments = parser.parse_args()
    document = measure(
        arguments.device,
        arguments.cache,
        small=arguments.small,
        seconds=arguments.seconds,
        embedded=arguments.embedded,
    )
    if arguments.page:
        arguments.page.write_text(page(document), "utf-8")
    if not arguments.json:
        print(table(document))
    print(json.dumps(document))
    sys.exit(0 if any("error" not in part for part in document["parts"]) else 1)


def measure(
    device: Device, cache: Path, *, small: bool, seconds: float, embedded: str = "embedded"
) -> dict[str, Any]:
    """Run each part; returns the document."""
    begun = time.monotonic()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(device):
            left = seconds - (time.monotonic() - begun)
            found.append(_run(part, device, cache, Path(folder), embedded, small, left))
            print(f"{part.name}: {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    return {
        "benchmark": "gpu",
        "device": _device_of(device),
        "small": small,
        "versions": {name: version(name) for name in LIBRARIES},
        "seconds": round(time.monotonic() - begun, 1),
        "at_most_seconds": seconds,
        "parts": found,
    }


def _run(
    part: Part,
    device: Device,
    cache: Path,
    folder: Path,
    embedded: str,
    small: bool,
    seconds_left: float,
) -> dict[str, Any]:
    """The result of a part, or why there is none."""
    head = {"name": part.name, **asdict(part)}
    if seconds_left <= 0:
        return {**head, "error": "not run: no time was left"}
    begun = time.monotonic()
    try:
        model = (
            embedded if part.model != RANDOM else str(_random_model(folder, cache, embedded, small))
        )
        spec = {**asdict(part), "model": model, "cache": str(cache), "small": small}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_child", json.dumps(spec)],
            capture_output=True,
            text=True,
            timeout=max(1.0, seconds_left - (time.monotonic() - begun)),
            env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})},
        )
    except subprocess.TimeoutExpired:
        return {**head, "error": "stopped: no time was left"}
    took = {"seconds": round(time.monotonic() - begun, 1)}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        return {**head, **took, "error": last}
    return {**head, **took, **json.loads(done.stdout.splitlines()[-1])}


def _random_model(folder: Path, cache: Path, embedded: str, small: bool) -> Path:
    """A model of random weights with the embedded model's tokenizer, made once."""
    target = folder / "random"
    if target.is_dir():
        return target
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from engine.models.catalogue import resolve

    sizes: dict[str, Any] = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    if small:
        sizes = {name: size // 32 for name, size in sizes.items()} | {
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
    tokenizer = AutoTokenizer.from_pretrained(resolve(embedded, cache).folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    unfinished = folder / "random.unfinished"
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    return unfinished.rename(target)


def _device_of(device: Device) -> dict[str, Any]:
    import torch

    if device == "cpu":
        return {"kind": "cpu", "threads": torch.get_num_threads()}
    if not torch.cuda.is_available():
        return {"kind": "cuda", "name": None}
    about = torch.cuda.get_device_properties(0)
    return {"kind": "cuda", "name": about.name, "memory_bytes": about.total_memory}


# The table


def page(document: Mapping[str, Any]) -> str:
    """The document as a page: the table, and the document itself."""
    small = " Made with `--small`: the figures mean nothing." if document["small"] else ""
    head = f"# The loop on {document['device'].get('name') or document['device']['kind']}\n\n"
    about = f"`python -m benchmarks.gpu`, {document['seconds']:.0f} seconds.{small}\n\n"
    body = json.dumps(document, indent=2)
    return f"{head}{about}{table(document)}\n\n```json\n{body}\n```\n"


def table(document: Mapping[str, Any]) -> str:
    """The parts as a table of Markdown."""
    lines = ["| part | tokens/s | peak | plan / peak | what else |", "|---|---|---|---|---|"]
    for part in document["parts"]:
        rows = _part_rows(part)
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _part_rows(part: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    if "error" in part:
        yield part["name"], "", "", "", part["error"]
    elif part["part"] == "serve":
        speeds = part["tokens_per_second"]
        told = ", ".join(f"{name.replace('_', ' ')} {speed:.0f}" for name, speed in speeds.items())
        yield part["name"], told, _gib(part["peak_bytes"]), "", ""
    else:
        for stage, found in part["stages"].items():
            first, last = found["loss"]
            yield (
                f"{part['name']}: {stage}",
                f"{found['tokens_per_second']:.0f}",
                _gib(found["peak_bytes"]),
                f"{found['planned_to_peak']:.2f}",
                f"loss {first:.2f} -> {last:.2f} in {found['steps']} steps",
            )
        swap, wished = part["swap"], part["swap"]["wished_log_probability"]
        yield (
            f"{part['name']}: swap",
            f"streams 8 {swap['tokens_per_second']:.0f}",
            "",
            "",
            f"{swap['seconds']:.1f} s; wished answer {wished['base']:.1f} ->"
            f" {wished['adapter']:.1f}",
        )


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GB"


if __name__ == "__main__":
    main()
