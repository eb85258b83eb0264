"""Tiny models of several families, and soft prompts for them that peft made and peft runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GlmConfig, LlamaConfig, Qwen2Config

from engine.adapters.bundle import publish_bundle
from engine.models.catalogue import BaseModel, resolve
from engine.storage import folder_of
from tests.helpers import NO_SNAPSHOT
from tests.support.decoders import SIZES, write_random
from tests.support.tiny_model import write_tiny_model

KINDS: dict[str, Any] = {
    "prefix": PrefixTuningConfig,
    "prompt": PromptTuningConfig,
    "p-tuning": PromptEncoderConfig,
}
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "glm": (GlmConfig, {"head_dim": 16}),  # neighbouring channels turn together
}


def write_base(root: Path, family: str) -> BaseModel:
    """A tiny random model of a family with the tiny tokenizer."""
    folder = root / "model"
    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind, more = FAMILIES[family]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    write_random(folder, kind(**sizes, bos_token_id=None, **ids, **more))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return resolve(str(folder), root / "cache")


def make_soft_bundle(
    root: Path, base: BaseModel, kind: str, tokens: int = 20, seed: int = 0, **changed: Any
) -> str:
    """Publish a random soft prompt, written by peft itself; returns the bundle's digest.

    `changed`: entries of the configuration that are replaced; `tensors`: a function of the saved
    tensors, where they are.
    """
    doctor = changed.pop("tensors", lambda tensors: tensors)

    def write(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
            config = KINDS[kind](task_type="CAUSAL_LM", num_virtual_tokens=tokens)
            adapted = get_peft_model(model, config)
        adapted.save_pretrained(folder)
        for other in {*folder.iterdir()} - {
            folder / name for name in ("adapter_config.json", "adapter_model.safetensors")
        }:
            other.unlink()
        saved = {key: _audible(tensor) for key, tensor in load_file(weights(folder)).items()}
        save_file(doctor(saved), weights(folder), metadata={"format": "pt"})
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return publish_bundle(root, write, {"base_digest": base.digest, "snapshot": NO_SNAPSHOT})


def weights(folder: Path) -> Path:
    """Where peft keeps the tensors."""
    return folder / "adapter_model.safetensors"


def _audible(tensor: Tensor) -> Tensor:
    """Scaled to entries of mean square 1: what peft begins with is at times too little to hear."""
    return tensor / tensor.square().mean().sqrt()


class SoftPeer:
    """What peft and transformers make of a soft prompt."""

    def __init__(self, base: BaseModel, root: Path, digest: str | None) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base.folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        if digest is not None:
            self.model = PeftModel.from_pretrained(self.model, folder_of(root, digest))
        self.model.eval()

    def prompt_ids(self, question: str) -> list[int]:
        """As the renderer makes them."""
        ids: list[int] = self.tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        return ids

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """(tokens, vocabulary) of the real tokens."""
        given = torch.tensor([list(ids)])
        logits: Tensor = self.model(input_ids=given, attention_mask=torch.ones_like(given)).logits
        return logits[0, -len(ids) :]

    def logprobs(self, question: str, completion: str) -> list[float]:
        """Log-probability of each token of a whole completion."""
        prompt, made = self.prompt_ids(question), self.tokenizer.encode(completion + "<|im_end|>")
        logprobs = self.logits(prompt + made).log_softmax(-1)
        return [float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(made)]

    def generate(self, question: str, max_new_tokens: int) -> str:
        """The text of peft's own greedy `generate`."""
        prompt = torch.tensor([self.prompt_ids(question)])
        ids = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )[0]
        text: str = self.tokenizer.decode(ids[prompt.shape[1] :], skip_special_tokens=True)
        return text
