"""The format `gguf-lora`: the adapter alone, for llama.cpp beside a GGUF file of the base model.

llama.cpp adds alpha / rank times B A to a weight (Hu et al. 2021, sec. 4.1), with one alpha for the
whole file. Where a module's factor is another (rsLoRA, an alpha of its own), B is multiplied by the
quotient. Tensors are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.export.verified import VerifiedRelease
from engine.adapters.files import WEIGHTS
from engine.adapters.lora import MATRIX_KEY
from engine.adapters.lora_config import rank_of, scaling_of

if TYPE_CHECKING:
    from deploy.export.gguf_settings import GgufModel
    from deploy.export.gguf_tensors import GgufTensor

QUANTIZATIONS: tuple[str, ...] = ()
LORA_TYPE = "lora"


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    from deploy.export.gguf_settings import unsupported

    if release.is_whole:
        return f"a {release.kind} is no adapter (use gguf)"
    if release.kind == "virtual tokens":
        return "llama.cpp adds low-rank matrices to weights, and virtual tokens are none (use peft)"
    if release.kind == "DoRA":
        return "DoRA rescales whole rows, which llama.cpp does not do (use gguf)"
    return unsupported(release.base.folder)


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`."""
    from gguf import GGUFType, GGUFWriter

    from deploy.export.gguf_settings import gguf_model_of
    from deploy.export.gguf_tensors import write_file

    model = gguf_model_of(release.base.folder)
    base_name = release.base_name.rpartition("/")[2]
    writer = GGUFWriter(None, model.architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", LORA_TYPE)
    writer.add_float32("adapter.lora.alpha", float(release.config["lora_alpha"]))
    writer.add_name(f"Burnish adapter {release.title} for {base_name}")
    file = folder / f"{base_name}-{release.title}-lora.gguf"
    write_file(writer, file, _matrices(release, model))


def _matrices(release: VerifiedRelease, model: GgufModel) -> Iterator[GgufTensor]:
    """A and B of each module; the rows of B are those of the module's weight."""
    from safetensors.torch import load_file

    from deploy.export.gguf_tensors import F32, GgufTensor, encode_tensor, gguf_module

    alpha = float(release.config["lora_alpha"])
    for key, matrix in sorted(load_file(release.folder / WEIGHTS).items()):
        match = MATRIX_KEY.fullmatch(key)
        assert match is not None, "a verified LoRA adapter has no other tensors"
        module, heads = match["module"], None
        part = gguf_module(module)
        if match["side"] == "B":
            heads = model.heads(part)
            matrix = matrix.float() * (
                scaling_of(release.config, module) * rank_of(release.config, module) / alpha
            )
        encode = partial(encode_tensor, key, matrix, F32, heads=heads)
        name = f"{part}.weight.lora_{match['side'].lower()}"
        yield GgufTensor(name, tuple(matrix.shape), F32, encode)
