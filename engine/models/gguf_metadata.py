"""What a GGUF file's metadata says about the model, as entries of `config.json`.

A GGUF file has no `config.json`: its metadata is one. Every key that belongs to the architecture
may change what the model computes, so each is read, or known to change nothing; any other is
refused by name. Keys of other tools (`quantize.imatrix.file`) are notes and are left alone.
Knows keys and their meaning in llama.cpp; knows nothing of tensors' layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import ModelUnavailable
from engine.models.gguf_rope import RopeTensors, rope_parameters

if TYPE_CHECKING:
    from gguf import GGUFReader

# Entries of config.json by key: those a file must have, since transformers' defaults are the sizes
# of some other checkpoint, and those it may have
REQUIRED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
OPTIONAL = {
    "general.name": "_model_name_or_path",
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
    "tokenizer.ggml.unknown_token_id": "unk_token_id",
}
# Read by _our_config and gguf_rope.py
READ = {
    "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "vocab_size", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}  # fmt: skip
# Whether the context was extended by training, and the order of rows in files of 2023
WITHOUT_EFFECT = {"rope.scaling.finetuned", "tensor_data_layout"}
# Keys of which one value alone is supported
ONLY_SUPPORTED: Mapping[str, object] = {
    "attention.causal": True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
    "use_parallel_residual": False,
}
# Entries of config.json to set where transformers decodes, since it may not read these keys
SET_FOR_TRANSFORMERS = {
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
TOKENIZER_KEYS = {
    f"tokenizer.{name}"
    for name in (
        "chat_template", "chat_templates", "huggingface.json", "ggml.model", "ggml.pre",
        "ggml.tokens", "ggml.token_type", "ggml.token_type_count", "ggml.scores", "ggml.merges",
        "ggml.bos_token_id", "ggml.eos_token_id", "ggml.eot_token_id", "ggml.eom_token_id",
        "ggml.eog_token_ids", "ggml.unknown_token_id", "ggml.seperator_token_id",
        "ggml.padding_token_id", "ggml.cls_token_id", "ggml.mask_token_id", "ggml.add_bos_token",
        "ggml.add_eos_token", "ggml.add_sep_token", "ggml.add_space_prefix",
        "ggml.remove_extra_whitespaces", "ggml.precompiled_charsmap", "ggml.fim_pre_token_id",
        "ggml.fim_suf_token_id", "ggml.fim_mid_token_id", "ggml.fim_pad_token_id",
        "ggml.fim_rep_token_id", "ggml.fim_sep_token_id", "ggml.prefix_token_id",
        "ggml.suffix_token_id", "ggml.middle_token_id",
    )
}  # fmt: skip
END_KEYS = (
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
)  # fmt: skip
# How byte-level vocabularies of these names split text: as GPT-2 does, or the same with single
# digits, which comes to the same tokens where the vocabulary joins no digits
GPT2_SPLITS = {
    "default", "gpt-2", "phi-2", "jina-v2-es", "jina-v2-de", "gigachat", "roberta-bpe", "mellum",
    "a.x-4.0", "modern-bert", "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone",
    "minerva-7b",
}  # fmt: skip
EMBEDDING = "token_embd.weight"
ROPE_TENSORS = {
    "rope_freqs.weight": "freqs",
    "rope_factors_short.weight": "short",
    "rope_factors_long.weight": "long",
}


@dataclass(frozen=True, slots=True)
class GgufSettings:
    """What a conversion takes from a file's metadata.

    config: all of config.json where we decode the architecture ourselves, else the entries that
    transformers does not read.
    """

    ours: bool
    config: Mapping[str, Any]
    end_ids: tuple[int, ...]  # tokens that end an answer


def read_settings(reader: GGUFReader, architecture: str, *, ours: bool) -> GgufSettings:
    """The settings of an opened file; `ours` where its architecture is one that we decode.

    Raises `ModelUnavailable` with everything that is missing or not understood.
    """
    metadata = {key: _value(reader, key) for key in reader.fields}
    prefix = f"{architecture}."
    settings = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    problems = _file_problems(metadata)
    problems += _our_problems(settings) if ours else _other_problems(settings, architecture, reader)
    if problems:
        raise ModelUnavailable("; ".join(problems))
    ends = [metadata[key] for key in END_KEYS if isinstance(metadata.get(key), int)]
    config = _our_config(metadata, settings, reader) if ours else _other_config(settings)
    return GgufSettings(ours, config, tuple(dict.fromkeys(ends)))


def _value(reader: GGUFReader, key: str) -> Any:
    try:
        return reader.fields[key].contents()
    except (ValueError, LookupError) as error:
        raise ModelUnavailable(f"its {key} cannot be read ({error})") from error


def _file_problems(metadata: Mapping[str, Any]) -> list[str]:
    """What is wrong whatever the architecture."""
    problems = [
        f"its setting {key} is not known"
        for key in metadata
        if key.startswith("tokenizer.")
        and key not in TOKENIZER_KEYS
        and not key.startswith("tokenizer.chat_template.")
    ]
    if metadata.get("general.type", "model") != "model":
        problems.append(f"it is a file of type {metadata['general.type']!r}, not a model")
    if (parts := metadata.get("split.count") or 0) > 1:
        problems.append(f"it is one of {parts} parts; join them with llama-gguf-split --merge")
    if not isinstance(metadata.get("tokenizer.chat_template"), str):
        problems.append(
            "it has no chat template (tokenizer.chat_template); "
            "give a file of a model that was tuned to chat"
        )
    split = metadata.get("tokenizer.ggml.pre", "default")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and split not in _known_splits():
        problems.append(f"its tokenizer splits text as {split!r} (tokenizer.ggml.pre)")
    return problems


def _known_splits() -> set[str]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return GPT2_SPLITS | set(GGUF_PRE_TOKENIZER_SPLITS)


def _our_problems(settings: Mapping[str, Any]) -> list[str]:
    known = READ | WITHOUT_EFFECT | ONLY_SUPPORTED.keys() | REQUIRED.keys()
    problems = [f"its setting {key} is not known" for key in settings if key not in known]
    problems += [f"it has no setting {key}" for key in REQUIRED if key not in settings]
    return problems + _fixed_problems(settings)


def _fixed_problems(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"its setting {key} = {settings[key]!r} is not supported"
        for key, value in ONLY_SUPPORTED.items()
        if key in settings and settings[key] != value
    ]


def _our_config(
    metadata: Mapping[str, Any], settings: Mapping[str, Any], reader: GGUFReader
) -> dict[str, Any]:
    """A whole config.json."""
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    heads, hidden = settings["attention.head_count"], settings["embedding_length"]
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1:
        raise ModelUnavailable("it gives no usable attention.head_count")
    if EMBEDDING not in shapes:
        raise ModelUnavailable(f"it has no tensor {EMBEDDING}")
    dim = settings.get("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if settings.get(key, dim) != dim:
            raise ModelUnavailable(
                f"its setting {key} = {settings[key]} is not supported for heads of {dim} channels"
            )
    return {
        "model_type": metadata["general.architecture"],
        **{name: settings[key] for key, name in REQUIRED.items()},
        **{name: metadata[key] for key, name in OPTIONAL.items() if key in metadata},
        "num_key_value_heads": settings.get("attention.head_count_kv", heads),
        "head_dim": dim,
        "vocab_size": int(shapes[EMBEDDING][1]),
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": "blk.0.attn_output.bias" in shapes,
        "rope_parameters": rope_parameters(
            settings,
            _rope_tensors(reader),
            pairs=dim // 2,
            context_tokens=settings["context_length"],
        ),
    }


def _rope_tensors(reader: GGUFReader) -> RopeTensors:
    found = {
        ROPE_TENSORS[tensor.name]: tensor.data.astype(float).tolist()
        for tensor in reader.tensors
        if tensor.name in ROPE_TENSORS
    }
    return RopeTensors(**found)


def _other_problems(
    settings: Mapping[str, Any], architecture: str, reader: GGUFReader
) -> list[str]:
    """Of an architecture that transformers alone decodes: what it would leave out silently."""
    problems = [
        f"its tensor {tensor.name} is not supported for the architecture {architecture!r}"
        for tensor in reader.tensors
        if tensor.name in ROPE_TENSORS
    ]
    read = _read_by_transformers(architecture)
    if read is not None:
        known = read | WITHOUT_EFFECT | ONLY_SUPPORTED.keys() | SET_FOR_TRANSFORMERS.keys()
        problems += [f"its setting {key} is not known" for key in settings if key not in known]
    return problems + _fixed_problems({k: v for k, v in settings.items() if k not in (read or ())})


def _read_by_transformers(architecture: str) -> set[str] | None:
    """The keys that transformers reads; None where a function of its own does."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    if architecture in GGUF_CONFIG_ARCHS:
        return None
    for name in (architecture, architecture.replace("-", "_"), architecture.replace("moe", "_moe")):
        if name in GGUF_CONFIG_MAPPING:
            return set(GGUF_CONFIG_MAPPING[name]) | {"attention.value_length", "vocab_size"}
    raise ModelUnavailable(f"its architecture is {architecture!r}, which transformers cannot read")


def _other_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[key] for key, name in SET_FOR_TRANSFORMERS.items() if key in settings}
