"""The format `gguf`: one file for llama.cpp and what is built on it, with the adapter merged in.

The weights are those of the format `merged`, rounded once more to the file's type. Q4_1 and Q8_0
have the engine's own groups: 32 weights with a float16 scale, and for 4 bits a float16 minimum. So
an engine that serves the file with as many bits takes its blocks as they are, and matrices that the
adapter leaves alone keep the blocks of the GGUF file that the base model came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.export import merged
from deploy.export.verified import VerifiedRelease
from engine.adapters.files import WEIGHTS

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

    from deploy.export.gguf_settings import GgufModel
    from deploy.export.gguf_tensors import GgufTensor
    from engine.quantization.groups import QuantizedMatrix

QUANTIZATIONS: tuple[str, ...] = ("f16", "q8_0", "q4_1")
EMBEDDING_WEIGHT, HEAD_WEIGHT = "model.embed_tokens.weight", "lm_head.weight"
# What peft adds to the name of a module before and after it
ADAPTED = re.compile(r"^base_model\.model\.|\.lora_.*$")


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    from deploy.export.gguf_settings import unsupported
    from deploy.export.gguf_tokenizer import tokenizer_problem

    folder = release.base.folder
    return (
        merged.refusal(release)
        or unsupported(release.folder if release.is_whole else folder)
        or (tokenizer_problem(folder) if release.base.gguf is None else None)
    )


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`."""
    write_gguf(release, folder / file_name(release, quantization), quantization)


def file_name(release: VerifiedRelease, quantization: str) -> str:
    """The name of the file that `write` makes."""
    base = release.base_name.rpartition("/")[2]
    adapted = "" if release.digest is None else f"-{release.title}"
    return f"{base}{adapted}-{quantization}.gguf"


def write_gguf(release: VerifiedRelease, file: Path, quantization: str) -> None:
    """Write the model as one GGUF file; raises `InvalidInput` for a weight that it cannot hold."""
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    from deploy.export.gguf_settings import add_settings, gguf_model_of
    from deploy.export.gguf_tensors import write_file
    from deploy.export.gguf_tokenizer import add_tokenizer, copy_tokenizer

    base = release.base
    model = gguf_model_of(release.folder if release.is_whole else base.folder)
    writer = GGUFWriter(None, model.architecture)
    _add_origin(writer, release)
    file_type = {"f16": "F16", "q8_0": "Q8_0", "q4_1": "Q4_1"}[quantization]
    writer.add_file_type(LlamaFileType[f"MOSTLY_{file_type}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    extra = add_settings(writer, model)
    if base.gguf is not None:
        copy_tokenizer(writer, base.gguf)
    else:
        add_tokenizer(writer, base.folder, model.decoder.config.vocabulary)
    write_file(writer, file, [*_tensors(release, model, quantization), *extra])


def _add_origin(writer: GGUFWriter, release: VerifiedRelease) -> None:
    adapted = "" if release.digest is None else f" with Burnish adapter {release.title}"
    writer.add_type("model")
    writer.add_name(release.base_name.rpartition("/")[2] + adapted)
    if release.preset is not None:
        organization, _, name = release.preset.hub_id.partition("/")
        writer.add_license(release.preset.licence)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, name)
        writer.add_base_model_organization(0, organization)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{release.preset.hub_id}")


def _tensors(release: VerifiedRelease, model: GgufModel, quantization: str) -> Iterator[GgufTensor]:
    """All tensors of the model, in the checkpoint's order."""
    from deploy.export.gguf_tensors import (
        BLOCK_BITS,
        GgufTensor,
        encode_blocks,
        encode_tensor,
        gguf_module,
        kind_of_tensor,
    )

    weights: dict[str, Tensor] = merged.merged_model(release).state_dict()
    untouched = _untouched_blocks(release)
    for name, weight in weights.items():
        if name == HEAD_WEIGHT and weight.data_ptr() == weights[EMBEDDING_WEIGHT].data_ptr():
            continue
        module, _, last = name.rpartition(".")
        part, shape = gguf_module(module), tuple(weight.shape)
        kind, heads = kind_of_tensor(module, shape, quantization), model.heads(part)
        encode = partial(encode_tensor, name, weight, kind, heads=heads)
        blocks = untouched(name) if kind in BLOCK_BITS else None
        if blocks is not None and blocks.bits == BLOCK_BITS[kind]:
            encode = partial(encode_blocks, blocks, heads=heads)
        yield GgufTensor(f"{part}.{last}", shape, kind, encode)


def _untouched_blocks(release: VerifiedRelease) -> Callable[[str], QuantizedMatrix | None]:
    """A look-up of the groups of tensors that the adapter leaves alone, in the base's GGUF file."""
    from safetensors import safe_open

    from engine.models.checkpoint import open_checkpoint

    base = release.base
    if base.gguf is None or release.kind == "whole model":
        return lambda name: None
    checkpoint = open_checkpoint(base.folder, base.gguf)
    touched: set[str] = set()
    if not release.is_whole:
        with safe_open(release.folder / WEIGHTS, framework="pt") as adapter:
            touched = {ADAPTED.sub("", key) for key in adapter.keys()}  # noqa: SIM118 - not a dict

    def look_up(name: str) -> QuantizedMatrix | None:
        module = name.removesuffix(".weight")
        return None if module in touched else checkpoint.blocks(name)

    return look_up
