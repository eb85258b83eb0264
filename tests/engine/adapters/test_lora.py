"""LoRA files that change more than an adapter may, and are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel
from tests.helpers import make_bundle


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},  # 12 of 14 modules silently ignored
        {"target_modules": "(.+)+x$"},  # a pattern: backtracks for ever on long module names
        {"target_modules": None},
        {"exclude_modules": ["q_proj"]},
        {"layers_to_transform": [0]},
        {"alora_invocation_tokens": [5]},  # silently the base model's text
        {"task_type": "SEQ_CLS"},
        {"task_type": "NOPE"},
        {"init_lora_weights": "nonsense"},
        {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
        {"init_lora_weights": "corda"},
        {"megatron_config": {"a": 1}},
        {"arrow_config": {"top_k": 1}},
        {"use_bdlora": {"nblocks": 2}},
        {"lora_alpha": 1e6},  # the norm limit does not see the scale
        {"lora_alpha": float("nan")},
        {"lora_alpha": True},
        {"r": True},
        {"lora_dropout": "x"},
    ],
    ids=lambda c: json.dumps(c)[:50],
)
def test_a_configuration_that_changes_what_is_served_is_refused(
    tiny_base: BaseModel, tmp_path: Path, config: dict[str, Any]
) -> None:
    digest = make_bundle(tmp_path, tiny_base, config=config)
    with pytest.raises(InvalidBundle, match=next(iter(config))):
        open_bundle(tmp_path, digest, tiny_base)


def test_targeted_modules_without_weights_are_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    digest = make_bundle(
        tmp_path, tiny_base, doctor=lambda t: {k: v for k, v in t.items() if "q_proj" in k}
    )
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(
    tiny_base: BaseModel, tmp_path: Path, text: str
) -> None:
    digest = make_bundle(
        tmp_path, tiny_base, write_more=lambda f: (f / "adapter_config.json").write_text(text)
    )
    with pytest.raises(InvalidBundle, match="adapter_config"):
        open_bundle(tmp_path, digest, tiny_base)


def test_weights_in_float8_are_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    digest = make_bundle(
        tmp_path, tiny_base, doctor=lambda t: {k: v.to(torch.float8_e4m3fn) for k, v in t.items()}
    )
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)
