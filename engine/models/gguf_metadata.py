"""The metadata of a GGUF file as entries of `config.json`.

Every key of the architecture may change what the model computes, so each is read, or known to
change nothing, or refused by name. Keys of other tools (`quantize.imatrix.file`) are ignored. The
chat template is checked here, too, since a file whose template is refused need not be converted.
Knows keys and their meaning in llama.cpp; knows nothing of the layouts of tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import ModelUnavailable
from engine.models.gguf_rope import RopeTensors, rope_parameters
from engine.prompts.template_check import examine_template
from engine.yaml_files import shipped_yaml

if TYPE_CHECKING:
    from gguf import GGUFReader

# Entries of config.json by key. A file must have the first ones, since the defaults of transformers
# are the sizes of another checkpoint; it may have the second ones
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
# Whether the context was extended by training, and the order of rows in files of 2023
WITHOUT_EFFECT = {"rope.scaling.finetuned", "tensor_data_layout"}
# Keys with a single supported value
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
# Where transformers does not read these, they must equal the values that it computes with
COMPARED = {
    "attention.value_length",
    "expert_feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
}
END_KEYS = (
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eog_token_ids",
)
EMBEDDING = "token_embd.weight"
ROPE_TENSORS = {
    "rope_freqs.weight": "freqs",
    "rope_factors_short.weight": "short",
    "rope_factors_long.weight": "long",
}


@dataclass(frozen=True, slots=True)
class GgufSettings:
    """The settings that a conversion takes from the metadata of a file.

    config: all of config.json where we decode the architecture ourselves, else the entries that
    transformers does not read. compared: further settings that it does not read, which must agree
    with its configuration (`disagreements`).
    """

    ours: bool
    config: Mapping[str, Any]
    compared: Mapping[str, Any]
    end_ids: tuple[int, ...]  # tokens that end an answer
    weights: int  # numbers in all tensors


def read_settings(reader: GGUFReader, architecture: str, *, ours: bool) -> GgufSettings:
    """Read the settings of an open file; `ours`: we decode its architecture ourselves.

    Raises `ModelUnavailable` with every key that is missing or not understood.
    """
    metadata = {key: _value(reader, key) for key in reader.fields}
    prefix = f"{architecture}."
    settings = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    read = frozenset() if ours else _read_by_transformers(architecture)
    problems = _file_problems(metadata)
    problems += _our_problems(settings) if ours else _other_problems(settings, read, reader)
    if problems:
        raise ModelUnavailable("; ".join(problems))
    unread = {key: value for key, value in settings.items() if key not in read}
    return GgufSettings(
        ours,
        config=_our_config(metadata, settings, reader) if ours else _other_config(unread),
        compared={} if ours else {key: unread[key] for key in COMPARED if key in unread},
        end_ids=_end_ids(metadata),
        weights=sum(int(tensor.n_elements) for tensor in reader.tensors),
    )


def disagreements(settings: GgufSettings, config: Any) -> list[str]:
    """The settings of the file that transformers does not read and that contradict its `config`."""
    computed = {} if config.is_heterogeneous else _computed_with(config)
    return [
        f"its setting {key} = {value!r} is not supported: transformers computes with "
        f"{computed.get(key, 'other values in each layer')}"
        for key, value in settings.compared.items()
        if value != computed.get(key)
    ]


def _computed_with(config: Any) -> dict[str, Any]:
    """The values of `COMPARED` in a configuration of equal layers."""
    heads, hidden = (getattr(config, name, 0) for name in ("num_attention_heads", "hidden_size"))
    dim = getattr(config, "head_dim", None) or hidden // max(heads, 1)
    feed_forward = getattr(config, "intermediate_size", None)
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)  # Gemma 3 has one for each kind of attention
    return {
        "attention.value_length": dim,
        "expert_feed_forward_length": getattr(config, "moe_intermediate_size", feed_forward),
        "rope.dimension_count": int(dim * rope.get("partial_rotary_factor", 1)),
        "rope.freq_base": rope.get("rope_theta"),
    }


def _end_ids(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """The distinct end tokens, in the order of `END_KEYS`."""
    found: list[int] = []
    for key in END_KEYS:
        said = metadata.get(key, [])
        found += said if isinstance(said, list) else [said]
    return tuple(dict.fromkeys(token for token in found if isinstance(token, int)))


@functools.cache
def known_keys() -> dict[str, Any]:
    """The tables of `gguf_keys.yaml`."""
    tables: dict[str, Any] = shipped_yaml("engine.models", "gguf_keys.yaml")
    return tables


def _value(reader: GGUFReader, key: str) -> Any:
    try:
        return reader.fields[key].contents()
    except (ValueError, LookupError) as error:
        raise ModelUnavailable(f"its {key} cannot be read ({error})") from error


def _file_problems(metadata: Mapping[str, Any]) -> list[str]:
    """Problems of the file that do not depend on its architecture."""
    problems = [
        f"its setting {key} is not known"
        for key in metadata
        if key.startswith("tokenizer.")
        and key.removeprefix("tokenizer.") not in known_keys()["tokenizer"]
        and not key.startswith("tokenizer.chat_template.")
    ]
    if metadata.get("general.type", "model") != "model":
        problems.append(f"it is a file of type {metadata['general.type']!r}, not a model")
    if (parts := metadata.get("split.count") or 0) > 1:
        problems.append(f"it is one of {parts} parts; join them with llama-gguf-split --merge")
    problems += _template_problems(metadata.get("tokenizer.chat_template"))
    split = metadata.get("tokenizer.ggml.pre", "default")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and split not in _known_splits():
        problems.append(f"its tokenizer splits text as {split!r} (tokenizer.ggml.pre)")
    return problems


def _template_problems(template: object) -> list[str]:
    if not isinstance(template, str):
        return [
            "it has no chat template (tokenizer.chat_template); "
            "give a file of a model that was tuned to chat"
        ]
    try:
        examine_template(template)
    except ModelUnavailable as error:
        return [str(error)]
    return []


def _known_splits() -> set[str]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return {*known_keys()["gpt2_splits"], *GGUF_PRE_TOKENIZER_SPLITS}


def _our_problems(settings: Mapping[str, Any]) -> list[str]:
    known = WITHOUT_EFFECT | ONLY_SUPPORTED.keys() | REQUIRED.keys() | set(known_keys()["read"])
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
        "eos_token_id": None,  # not transformers' default, where the file names none
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
    settings: Mapping[str, Any], read: frozenset[str], reader: GGUFReader
) -> list[str]:
    """Keys and tensors that transformers, which decodes the file, would ignore silently."""
    problems = [
        f"its tensor {tensor.name} is not supported for its architecture"
        for tensor in reader.tensors
        if tensor.name in ROPE_TENSORS
    ]
    known = read | COMPARED | WITHOUT_EFFECT | ONLY_SUPPORTED.keys() | SET_FOR_TRANSFORMERS.keys()
    problems += [f"its setting {key} is not known" for key in settings if key not in known]
    return problems + _fixed_problems({k: v for k, v in settings.items() if k not in read})


def _read_by_transformers(architecture: str) -> frozenset[str]:
    """The keys that decide the configuration of transformers; those it maps to None do not.

    The size of the vocabulary is the number of tokens, whatever `vocab_size` is.
    """
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    if read := known_keys()["read_by_function"].get(architecture):
        return frozenset({*read, "vocab_size"})
    for name in (architecture, architecture.replace("-", "_"), architecture.replace("moe", "_moe")):
        if name in GGUF_CONFIG_MAPPING:
            entries = GGUF_CONFIG_MAPPING[name]
            return frozenset({key for key in entries if entries[key] is not None} | {"vocab_size"})
    raise ModelUnavailable(f"its architecture is {architecture!r}, which transformers cannot read")


def _other_config(unread: Mapping[str, Any]) -> dict[str, Any]:
    return {name: unread[key] for key, name in SET_FOR_TRANSFORMERS.items() if key in unread}
