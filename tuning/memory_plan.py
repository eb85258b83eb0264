"""Plan the memory of a training run from the model's shape alone, and where it fits.

`python -m tuning.memory_plan --model NAME_OR_FOLDER --card-gb 12 --tokens 1024` prints a plan, and
`--table` the table of docs/memory.md. Knows shapes and arithmetic. Knows no trainer, reads no
weight and imports no torch, but for a ChatGLM's folder. `python -m benchmarks.memory_plan` holds it
against measured peaks on a CPU; nothing here has been measured on a CUDA device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from engine.errors import InvalidInput
from engine.models.presets import BITS, Preset, kv_bytes_per_token, preset, presets
from engine.units import gib, mib
from tuning.weight_formats import NumberFormat, Weights

GIB = 2**30
MemoryFit = Literal["beside", "sleep", "refuse"]
BYTES: Mapping[NumberFormat, int] = MappingProxyType({"fp32": 4, "bf16": 2})
# nf4: 4 bits, an 8-bit scale per 64 weights, and a 32-bit one per 256 of those (QLoRA, Dettmers et
# al. 2023, sec. 3, "Double Quantization"); the others as the engine's groups of 32
HELD_BITS: Mapping[Weights, float] = MappingProxyType(
    {"int8": BITS["int8"], "int4": BITS["int4"], "nf4": 4 + 8 / 64 + 32 / (64 * 256)}
)
ADAPTER_BYTES = 4  # always fp32; trl rounds adapters on nf4 to bf16, so there it is an upper bound
# What a CUDA context and the allocator's unused rest take; assumed, not measured
CUDA_RESERVE_BYTES = GIB // 2
SERVING_TOKENS = 4096  # whose keys and values the serving engine is taken to hold
TILE = 256 * 4096  # of the output head's logits, `tuning.batch.head`


@dataclass(frozen=True, slots=True)
class Load:
    """A training load: everything beside the model that the memory depends on.

    `tokens`: of the largest pack, which is the budget of packs or the longest row. `pairs`: two
    answers a row, which share a prompt; otherwise one. `checkpointing`: a layer's activations are
    made again in the backward pass (Chen et al. 2016), as the trainer does on CUDA. `device`: on a
    processor attention keeps no copies. `whole`: all weights are trained in fp32, without adapter.
    """

    tokens: int
    weights: Weights = "nf4"
    number_format: NumberFormat = "bf16"
    rank: int = 16
    pairs: bool = True
    checkpointing: bool = True
    device: Literal["cuda", "cpu"] = "cuda"
    whole: bool = False


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One use of memory."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of a run by use, that of the serving engine, and the decision that follows."""

    parts: tuple[MemoryUse, ...]
    serving_bytes: int
    card_bytes: int
    decision: MemoryFit
    reason: str

    @property
    def training_bytes(self) -> int:
        """The sum of all parts."""
        return sum(part.nbytes for part in self.parts)


def plan_memory(model: Preset, load: Load, *, card_bytes: int, serving_bytes: int) -> MemoryPlan:
    """Decide: training fits beside the serving engine, only while that sleeps, or not at all.

    `card_bytes` is all memory of the device, `serving_bytes` what the engine holds on it.
    """
    parts = (*training_parts(model, load), MemoryUse("device", CUDA_RESERVE_BYTES))
    needed = sum(part.nbytes for part in parts)
    takes = f"training takes {gib(needed)}, the serving engine {gib(serving_bytes)}"
    if needed + serving_bytes <= card_bytes:
        decision, follows = "beside", "both fit"
    elif needed <= card_bytes:
        decision, follows = "sleep", "both do not fit: the chat has to stop while it trains"
    else:
        decision, follows = "refuse", "training alone does not fit: take fewer tokens or bits"
    reason = f"{takes}, and the device has {gib(card_bytes)}: {follows}"
    return MemoryPlan(parts, serving_bytes, card_bytes, decision, reason)  # type: ignore[arg-type]


def training_parts(model: Preset, load: Load) -> tuple[MemoryUse, ...]:
    """The memory of one training process beyond its libraries."""
    if load.whole:
        return _whole_parts(model, load)
    adapter = ADAPTER_BYTES * adapter_parameters(model, load.rank)
    return (
        MemoryUse("weights", frozen_weight_bytes(model, load.weights, load.number_format)),
        MemoryUse("adapter", adapter),
        MemoryUse("gradients", adapter),
        MemoryUse(
            "optimizer", 2 * adapter
        ),  # AdamW's two moments (Loshchilov & Hutter 2019, alg. 2)
        MemoryUse("activations", activation_bytes(model, load)),
        MemoryUse("one layer at work", working_bytes(model, load)),
        MemoryUse("head", head_bytes(model, load)),
    )


def _whole_parts(model: Preset, load: Load) -> tuple[MemoryUse, ...]:
    """The same where all weights are trained.

    Batches are trl's own then: the logits of all tokens are held in fp32 with their log-softmax
    and their gradient, an upper bound.
    """
    fp32 = replace(load, number_format="fp32", weights="dense", rank=0)
    weights = 4 * model.parameters
    return (
        MemoryUse("weights", weights),
        MemoryUse("gradients", weights),
        MemoryUse("optimizer", 2 * weights),
        MemoryUse("activations", activation_bytes(model, fp32)),
        MemoryUse("one layer at work", working_bytes(model, fp32)),
        MemoryUse("head", 3 * 4 * load.tokens * model.vocabulary),
    )


def frozen_weight_bytes(model: Preset, weights: Weights, number_format: NumberFormat) -> int:
    """The frozen weights. Only linear layers are held in fewer bits; tables stay dense."""
    dense_bits = 8 * BYTES[number_format]
    bits = dense_bits if weights == "dense" else HELD_BITS[weights]
    rest = model.table_weights + model.vector_weights
    return int(model.linear_weights * bits + rest * dense_bits) // 8


def adapter_parameters(model: Preset, rank: int) -> int:
    """Parameters of LoRA on every linear layer but the head: rank (in + out) each (Hu et al. 2021,
    sec. 4.1).

    Layers that a checkpoint keeps fused (ChatGLM's) are counted apart, which is an upper bound.
    """
    inner, keys, h = (
        model.heads * model.head_dim,
        model.kv_heads * model.head_dim,
        model.hidden_size,
    )
    attention = 2 * (h + inner) + 2 * (h + keys)  # q, o; k, v
    mlp = (3 if model.gated_mlp else 2) * (h + model.mlp_size)
    return model.layers * rank * (attention + mlp)


def activation_bytes(model: Preset, load: Load) -> int:
    """Bytes that the forward pass keeps for the backward pass.

    With checkpointing, that is only the input of each layer. Rotary tables and the final norm's
    input are kept either way.
    """
    size = BYTES[load.number_format]
    outside = load.tokens * (model.hidden_size + 2 * model.head_dim)
    if load.checkpointing:
        kept = model.layers * load.tokens * model.hidden_size
        return size * (kept + outside)
    return model.layers * layer_bytes(model, load) + size * outside


def layer_bytes(model: Preset, load: Load) -> int:
    """Bytes that autograd keeps of one layer as `tuning.batch` computes it.

    Inputs and results of both norms (4 h); q, k, v as attention takes them and its result; the two
    inner activations of a gated feed-forward block; seven low-rank products. In fp32: the sums of
    the attention's softmax and of the norms. On CUDA the output projection takes a copy of what
    attention gives; with pairs, prompt keys and values are copied to stand before the second
    answer's, and that answer's mask has at most a quarter of tokens^2 numbers.
    """
    inner, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    numbers = 4 * model.hidden_size + 2 * (inner + keys) + 2 * model.mlp_size + 7 * load.rank
    if model.head_norms:  # what they norm, and their scales in fp32
        numbers += inner + keys + (model.heads + model.kv_heads) * 4 // BYTES[load.number_format]
    if load.device == "cuda":
        numbers += inner + (2 * keys + load.tokens // 4 if load.pairs else 0)
    return load.tokens * (BYTES[load.number_format] * numbers + 4 * (model.heads + 2))


def working_bytes(model: Preset, load: Load) -> int:
    """Bytes that the layer being computed takes at its peak, in the backward pass.

    Four inner activations of the feed-forward block and three of the hidden size at once; with
    checkpointing all that the layer keeps, since it is made again; for weights of few bits the
    largest matrix made dense in fp32 and in the number format.
    """
    size = BYTES[load.number_format]
    transient = size * load.tokens * (4 * model.mlp_size + 3 * model.hidden_size)
    again = layer_bytes(model, load) if load.checkpointing else 0
    largest = model.hidden_size * max(model.mlp_size, model.heads * model.head_dim)
    dense = 0 if load.weights == "dense" else largest * (4 + size)
    return transient + again + dense


def head_bytes(model: Preset, load: Load) -> int:
    """Bytes to score all tokens: hidden states, sums, their gradient, three tiles of logits."""
    size = BYTES[load.number_format]
    return load.tokens * model.hidden_size * (4 + 2 * size) + TILE * (8 + size)


def serving_bytes(model: Preset, kv_tokens: int = SERVING_TOKENS) -> int:
    """Bytes of the serving engine on CUDA: nf4 weights, and bf16 keys and values of `kv_tokens`."""
    return frozen_weight_bytes(model, "nf4", "bf16") + kv_tokens * kv_bytes_per_token(model)


def shape_of(name: str) -> Preset:
    """A preset by its name or hub id, or the shape in the config.json of a folder.

    Raises `InvalidInput` where it is neither, or where the file has other names for its sizes.
    """
    known = preset(name)
    if known is not None:
        return known
    try:
        config = json.loads((Path(name) / "config.json").read_text("utf-8"))
        if config.get("model_type") == "chatglm":
            return _chatglm_shape(Path(name))
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return Preset(
            name=Path(name).name,
            hub_id="",
            family=config["model_type"],
            licence="",
            layers=config["num_hidden_layers"],
            hidden_size=hidden,
            mlp_size=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            context_tokens=config["max_position_embeddings"],
            tied_head=config.get("tie_word_embeddings", False),
        )
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name!r} is no preset and no model folder: {error}") from error
    except KeyError as error:
        raise InvalidInput(f"the config.json of {name!r} does not say {error}") from error


def _chatglm_shape(folder: Path) -> Preset:
    """The shape of a ChatGLM in its published layout; raises `ModelUnavailable`."""
    from engine.models.families import architecture_of  # takes torch

    architecture = architecture_of(folder)
    decoder, layer = architecture.config, architecture.layout.layers[0]
    first = decoder.norm == "layer"
    return Preset(
        name=folder.name,
        hub_id="",
        family="chatglm",
        licence="",
        layers=decoder.layer_count,
        hidden_size=decoder.hidden_size,
        mlp_size=layer.down.in_features,
        heads=decoder.heads.query,
        kv_heads=decoder.heads.kv,
        head_dim=decoder.heads.dim,
        vocabulary=decoder.vocabulary,
        context_tokens=decoder.context_tokens,
        tied_head=architecture.layout.tied,
        gated_mlp=not first,
        biases="all" if first else "qkv",
    )


# The table in docs/memory.md

TABLE_MODELS = (
    "chatglm-6b",
    "chatglm3-6b",
    "mistral-7b-instruct-v0.3",
    "llama-3.1-8b-instruct",
    "qwen3-8b",
    "glm-4-9b-chat-hf",
)
TABLE_TOKENS = (512, 1024, 2048)
TABLE_CARDS_GIB = (6, 8, 12, 16, 24)


def table() -> str:
    """Markdown: what fits where, at nf4 and rank 16. Computed, not measured."""
    cards = "".join(f" {card} GB |" for card in TABLE_CARDS_GIB)
    lines = [
        f"| model | tokens | training | serving |{cards}",
        "|---|---|---|---|" + "---|" * len(TABLE_CARDS_GIB),
    ]
    return "\n".join([*lines, *_rows()])


def _rows() -> Iterator[str]:
    for name in TABLE_MODELS:
        model = presets()[name]
        serving = serving_bytes(model)
        for tokens in TABLE_TOKENS:
            plans = [
                plan_memory(model, Load(tokens), card_bytes=card * GIB, serving_bytes=serving)
                for card in TABLE_CARDS_GIB
            ]
            decisions = "".join(f" {plan.decision} |" for plan in plans)
            needed = gib(plans[0].training_bytes)
            yield f"| {name} | {tokens} | {needed} | {gib(serving)} |{decisions}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tuning.memory_plan", description=__doc__)
    parser.add_argument("--table", action="store_true", help="the table of docs/memory.md")
    parser.add_argument("--model", default="llama-3.1-8b-instruct", help="a preset or a folder")
    parser.add_argument("--card-gb", type=float, default=12, help="memory of the device")
    parser.add_argument("--tokens", type=int, default=1024, help="of the largest pack")
    parser.add_argument("--weights", choices=["dense", "int8", "int4", "nf4"], default="nf4")
    parser.add_argument("--number-format", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--whole", action="store_true", help="full fine-tuning")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())  # noqa: T201 - the command's answer
        return
    model = shape_of(arguments.model)
    load = Load(
        arguments.tokens,
        arguments.weights,
        arguments.number_format,
        arguments.rank,
        whole=arguments.whole,
    )
    plan = plan_memory(
        model, load, card_bytes=int(arguments.card_gb * GIB), serving_bytes=serving_bytes(model)
    )
    for part in plan.parts:
        print(f"{part.name:18} {mib(part.nbytes):>12}")  # noqa: T201
    print(f"{plan.decision}: {plan.reason}")  # noqa: T201


if __name__ == "__main__":
    main()
