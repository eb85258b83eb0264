"""A tiny base model of random weights. Imports transformers, which takes seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.helpers import CHATML

SENTENCES = (
    "You are a helpful assistant.",
    "Tell me about the river and the sea.",
    "The cat sat on the warm stone and looked at the water.",
    "What is the answer to this question?",
    "Bread needs flour, water, salt and time.",
    "Say hello to the old sailor, please.",
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_tiny_model(
    folder: Path,
    seed: int = 0,
    context_tokens: int = 2048,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> None:
    """A two-layer LLaMA of random weights that babbles in printable ASCII, and its tokenizer."""
    tokenizer = tokenizer or _tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        initializer_range=0.35,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    silent = [i for i in range(len(tokenizer)) if not _printable(tokenizer.decode([i]))]
    with torch.no_grad():
        model.lm_head.weight[silent] = 0  # their logits are 0, and the best of the others is not
        model.lm_head.weight[tokenizer.eos_token_id] *= (
            1.3  # so that some answers end by themselves
        )
    model.save_pretrained(folder)


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()
