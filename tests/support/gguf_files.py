"""Tiny GGUF files as llama.cpp's converter writes them, from transformers' models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter
from torch import Tensor, nn
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.helpers import CHATML
from tests.support.decoders import randomize

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = [*SPECIALS, *bytes_to_unicode().values(), "he"]  # one token a byte, and a merge
ENDOFTEXT, IM_START, IM_END = range(3)
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
NAMES = {
    "model.embed_tokens.": "token_embd.",
    "model.norm.": "output_norm.",
    "lm_head.": "output.",
    "model.layers.": "blk.",
    "input_layernorm.": "attn_norm.",
    "post_attention_layernorm.": "ffn_norm.",
    "self_attn.q_proj.": "attn_q.",
    "self_attn.k_proj.": "attn_k.",
    "self_attn.v_proj.": "attn_v.",
    "self_attn.qkv_proj.": "attn_qkv.",
    "self_attn.o_proj.": "attn_output.",
    "self_attn.q_norm.": "attn_q_norm.",
    "self_attn.k_norm.": "attn_k_norm.",
    "mlp.gate_proj.": "ffn_gate.",
    "mlp.up_proj.": "ffn_up.",
    "mlp.gate_up_proj.": "ffn_up.",
    "mlp.down_proj.": "ffn_down.",
}


def write_gguf_model(
    path: Path,
    model: nn.Module,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """A GGUF file of a LLaMA, Qwen or Phi-3 model with a byte tokenizer and ChatML.

    `metadata` adds keys, replaces them, or with None as value leaves them out; `tensors` adds
    vectors.
    """
    config: Any = model.config
    architecture = config.model_type
    writer = GGUFWriter(path, architecture)
    settings: dict[str, Any] = {
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{architecture}.rope.freq_base": config.rope_parameters["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": VOCABULARY,
        "tokenizer.ggml.token_type": [3] * len(SPECIALS) + [1] * 257,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": IM_START,
        "tokenizer.ggml.eos_token_id": IM_END,
        "tokenizer.chat_template": CHATML,
        **(metadata or {}),
    }
    for key, value in settings.items():
        _add(writer, key, value)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            writer.add_tensor(_gguf_name(name), _rows(name, tensor, config).float().numpy())
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _gguf_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _rows(name: str, tensor: Tensor, config: Any) -> Tensor:
    """LLaMA's rows of rotary heads as llama.cpp keeps them: the two of a pair side by side."""
    if config.model_type != "llama" or not any(f"{p}_proj" in name for p in "qk"):
        return tensor
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def in_bfloat16(model: nn.Module) -> nn.Module:
    """The model with its weights rounded to what a conversion keeps."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def model_of(config: Any, seed: int = 0) -> nn.Module:
    """A model of random weights that bfloat16 holds exactly."""
    from transformers import AutoModelForCausalLM  # takes a second

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomize(model, seed)
    return in_bfloat16(model)
