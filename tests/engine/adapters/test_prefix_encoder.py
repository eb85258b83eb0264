"""P-tuning v2 checkpoints of the ChatGLM family are served as the published code runs them.

ChatGLM-6B is held against its definition written out, the others against transformers' GLM with a
filled cache: a prefix is seen by every token, and the prompt is numbered from 0 all the same.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache

from engine.adapters.bundle import open_bundle, publish_bundle
from engine.adapters.prefix_encoder import convert_prefix_checkpoint, is_prefix_checkpoint
from engine.errors import InvalidBundle, ModelUnavailable
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer
from engine.request import ScoreRequest
from tests.helpers import NO_SNAPSHOT
from tests.support.chatglm_models import write_tiny_chatglm
from tests.support.chatglm_weights import chatglm1_logits, write_chatglm2_weights

TOKENS, LAYERS = 20, 2
KEY_HEADS = {"chatglm1": 4, "chatglm2": 2}
QUESTION, COMPLETION = (Message("user", "ni hao?"),), "hello."


def width(family: str) -> int:
    return 2 * LAYERS * KEY_HEADS[family] * 16


def write_checkpoint(folder: Path, family: str, *, projected: bool) -> Tensor:
    """A random checkpoint with the prefix alone; returns keys and values (tokens, width)."""
    folder.mkdir()
    numbers = torch.Generator().manual_seed(1)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers)

    name = "transformer.prefix_encoder"
    tensors = {f"{name}.embedding.weight": some(TOKENS, 24 if projected else width(family))}
    prefix = tensors[f"{name}.embedding.weight"]
    if projected:
        network = {"0.weight": some(32, 24), "0.bias": some(32)}
        network |= {"2.weight": 0.2 * some(width(family), 32), "2.bias": some(width(family))}
        tensors |= {f"{name}.trans.{key}": tensor for key, tensor in network.items()}
        inner = torch.tanh(prefix @ network["0.weight"].T + network["0.bias"])
        prefix = inner @ network["2.weight"].T + network["2.bias"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "chatglm", "pre_seq_len": TOKENS, "prefix_projection": projected})
    )
    return prefix


def published(root: Path, base: BaseModel, checkpoint: Path) -> str:
    return publish_bundle(
        root,
        lambda folder: convert_prefix_checkpoint(checkpoint, base.folder, folder),
        {"base_digest": base.digest, "snapshot": NO_SNAPSHOT},
    )


def expected_logits(family: str, base: BaseModel, peer: Any, ids: list[int], p: Tensor) -> Tensor:
    pairs = p.view(TOKENS, 2 * LAYERS, KEY_HEADS[family], 16)
    if family == "chatglm1":
        config = json.loads((base.folder / "config.json").read_text())
        return chatglm1_logits(config, load_file(base.folder / "model.safetensors"), ids, pairs)
    cache = DynamicCache()
    for layer in range(LAYERS):
        key, value = (pairs[:, 2 * layer + n].transpose(0, 1)[None] for n in (0, 1))
        cache.update(key, value, layer)
    with torch.no_grad():
        logits: Tensor = peer(
            torch.tensor([ids]), past_key_values=cache, position_ids=torch.arange(len(ids))[None]
        ).logits[0]
    return logits


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("family", KEY_HEADS)
def test_a_published_prefix_is_served(
    family: str, projected: bool, tmp_path: Path, kernel_cache: Path
) -> None:
    write_tiny_chatglm(tmp_path / "model", family)
    peer = None
    if family == "chatglm2":
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        sizes = {"inner": 96, "vocabulary": config["padded_vocab_size"]}
        (tmp_path / "peer").mkdir()
        peer = write_chatglm2_weights(tmp_path / "peer", **sizes)
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    prefix = write_checkpoint(tmp_path / "prefix", family, projected=projected)
    assert is_prefix_checkpoint(tmp_path / "prefix")
    assert not is_prefix_checkpoint(base.folder)
    digest = published(tmp_path / "bundles", base, tmp_path / "prefix")
    renderer = load_renderer(base.folder)
    rendered = renderer.pair(QUESTION, COMPLETION)
    logits = expected_logits(family, base, peer, rendered.input_ids, prefix)
    logits[:, renderer.ids_without_token(logits.shape[1])] = -torch.inf  # the engine draws none
    logits = logits.log_softmax(-1)
    begun = len(rendered.prompt_ids)
    expected = [
        float(logits[begun + n - 1, token]) for n, token in enumerate(rendered.completion_ids)
    ]
    with contextlib.closing(
        FastEngine(base, kernel_cache=kernel_cache, dtype=torch.float32)
    ) as engine:
        engine.load_adapter(digest, open_bundle(tmp_path / "bundles", digest, base).folder)
        found, plain = engine.score(
            [ScoreRequest(QUESTION, COMPLETION, adapter) for adapter in (digest, None)]
        )
    assert list(found.token_logprobs) == pytest.approx(expected, abs=2e-4)
    assert (
        max(abs(a - b) for a, b in zip(found.token_logprobs, plain.token_logprobs, strict=True))
        > 0.1
    )


def test_what_is_no_prefix_of_this_base_is_refused(tmp_path: Path) -> None:
    write_tiny_chatglm(tmp_path / "model", "chatglm1")
    write_checkpoint(tmp_path / "other", "chatglm2", projected=False)
    (tmp_path / "into").mkdir()
    with pytest.raises(InvalidBundle, match=r"shape \(20, 128\): made for another base"):
        convert_prefix_checkpoint(tmp_path / "other", tmp_path / "model", tmp_path / "into")
    with pytest.raises(InvalidBundle, match="not those of a prefix encoder"):
        convert_prefix_checkpoint(tmp_path / "model", tmp_path / "model", tmp_path / "into")
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "other" / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="pickled weights are refused"):
        convert_prefix_checkpoint(tmp_path / "other", tmp_path / "model", tmp_path / "into")
    assert not [*(tmp_path / "into").iterdir()]
