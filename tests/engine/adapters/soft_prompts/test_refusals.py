"""A soft prompt that does not fit its base is refused by the field that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.adapters.bundle import open_bundle, publish_bundle
from engine.adapters.soft_prompt import MAX_VIRTUAL_TOKENS, open_adapter
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel
from engine.storage import folder_of
from tests.engine.adapters.soft_prompts.conftest import Home
from tests.helpers import NO_SNAPSHOT
from tests.support.chatglm_weights import write_chatglm1_weights
from tests.support.soft_prompts import make_soft_bundle


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "changed", "problem"),
        [
            ("prompt", {"num_virtual_tokens": MAX_VIRTUAL_TOKENS + 1}, "num_virtual_tokens is 513"),
            ("prompt", {"num_virtual_tokens": True}, "num_virtual_tokens is True"),
            ("prompt", {"num_virtual_tokens": 3}, "shape (4, 64), not (3, 64)"),
            ("p-tuning", {"token_dim": 32}, "token_dim is 32, not 64"),
            ("prefix", {"token_dim": 64}, "token_dim is 64, not 32"),
            ("prefix", {"num_attention_heads": 4}, "num_attention_heads is 4, not 2"),
            ("prefix", {"num_layers": 3}, "num_layers is 3, not 2"),
            ("prefix", {"task_type": "SEQ_2_SEQ_LM"}, "task_type is 'SEQ_2_SEQ_LM'"),
            ("prompt", {"num_transformer_submodules": 2}, "num_transformer_submodules is 2"),
            ("prompt", {"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
            ("prompt", {"auto_mapping": {"x": "y"}}, "auto_mapping is not supported"),
            ("prompt", {"peft_type": "PREFIX_TUNING"}, "token_dim is 64, not 32"),
        ],
        ids=str,
    )
    def test_a_configuration_that_does_not_fit_is_refused_by_its_field(
        self, llama: Home, kind: str, changed: dict[str, Any], problem: str
    ) -> None:
        digest = make_soft_bundle(llama.root, llama.base, kind, 4, **changed)
        with pytest.raises(InvalidBundle) as refused:
            open_bundle(llama.root, digest, llama.base)
        assert problem in str(refused.value)

    @pytest.mark.parametrize("kind", ["prefix", "prompt"])
    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda t: {k: v * float("nan") for k, v in t.items()}, "NaN or infinite"),
            (lambda t: {k: v * 1e4 for k, v in t.items()}, "over the limit"),
            (lambda t: {k: v[:, :-1].contiguous() for k, v in t.items()}, "has shape"),
            (lambda t: {k: v.long() for k, v in t.items()}, "holds torch.int64"),
            (lambda t: t | {"extra": torch.zeros(1)}, "extra is not a soft prompt's tensor"),
            (lambda _: {"other": torch.zeros(1)}, "holds no prompt_embeddings"),
        ],
    )
    def test_weights_that_are_no_soft_prompt_of_this_base_are_refused(
        self, llama: Home, kind: str, change: Callable[[Any], Any], problem: str
    ) -> None:
        digest = make_soft_bundle(llama.root, llama.base, kind, 4, tensors=change)
        with pytest.raises(InvalidBundle) as refused:
            open_bundle(llama.root, digest, llama.base)
        assert problem in str(refused.value)

    def test_one_for_another_base_is_refused(self, llama: Home, homes: Any) -> None:
        digest = llama.make("prompt", 4)
        with pytest.raises(InvalidBundle, match="trained for another base model"):
            open_bundle(llama.root, digest, homes("qwen2").base)

    def test_a_model_that_reads_a_prompt_both_ways_says_why_it_takes_no_embeddings(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "chatglm"
        folder.mkdir()
        write_chatglm1_weights(folder, heads=4, hidden=64, inner=128, layers=2, eps=1e-5)
        base = BaseModel("chatglm", folder, "sha256:" + "1" * 64)

        def write(into: Path) -> None:
            (into / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
            save_file({"prompt_embeddings": torch.zeros(4, 64)}, into / "adapter_model.safetensors")

        given = {"base_digest": base.digest, "snapshot": NO_SNAPSHOT}
        digest = publish_bundle(tmp_path / "bundles", write, given)
        with pytest.raises(InvalidBundle, match="reads its prompt both ways"):
            open_bundle(tmp_path / "bundles", digest, base)
        host: Any = SimpleNamespace(base=folder)
        with pytest.raises(InvalidBundle, match="reads its prompt both ways"):
            open_adapter(digest, folder_of(tmp_path / "bundles", digest), host)
