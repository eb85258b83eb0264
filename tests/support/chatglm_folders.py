"""Tiny checkpoints of the ChatGLM family in published layout, without weights: one per family.

Their vocabularies are made so that ids can be told by hand: SentencePiece models in which every
character of `ALPHABET` is a piece (in the order of the characters, after the one for a space) and
every other one is bytes, and a list of ranks in which a byte's id is its value.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from engine.prompts.detokenizer import Detokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz.,:12问答你好在吗"
BLANK_MARKS = ["<|tab|>", *(f"<|blank_{count}|>" for count in range(2, 81))]
CHATGLM1_CONTROL = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>"]
GLM4_SPECIALS = [
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
]
# In the order of their ids, from 256 on.
GLM4_MERGES = [b"he", b"ll", b"hell", b"\n\n", b"\xe4\xbd", b"\xe4\xbd\xa0", b"\xe5\xa5"]
GLM4_FIRST_SPECIAL = 256 + len(GLM4_MERGES)


def write_chatglm1(folder: Path, *, num_image_tokens: int = 0) -> Path:
    """ChatGLM-6B: normalized text, marks for white space, special tokens inside the vocabulary."""
    pieces = _write_pieces(
        folder / "ice_text.model",
        normalization_rule_name="nmt_nfkc",
        pad_id=3,
        control_symbols=CHATGLM1_CONTROL,
        user_defined_symbols=["<n>", *BLANK_MARKS],
    )
    config = {
        "model_type": "chatglm",
        "vocab_size": pieces + num_image_tokens + 8,
        "position_encoding_2d": True,
    }
    settings = {"tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": num_image_tokens}
    return write_json(folder, config, settings)


def write_chatglm2(folder: Path, *, name: str = "THUDM/chatglm2-6b") -> Path:
    """ChatGLM2-6B, or by another `name` ChatGLM3-6B: special tokens after the vocabulary."""
    pieces = _write_pieces(
        folder / "tokenizer.model",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    config = {"model_type": "chatglm", "padded_vocab_size": pieces + 16, "eos_token_id": 2}
    return write_json(folder, config, {"name_or_path": name})


def write_chatglm3(folder: Path) -> Path:
    """ChatGLM3-6B."""
    return write_chatglm2(folder, name="THUDM/chatglm3-6b")


def write_glm4(folder: Path) -> Path:
    """GLM-4-9b-chat, remote-code layout."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*(bytes([byte]) for byte in range(256)), *GLM4_MERGES]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_text("".join(lines))
    added = {
        str(GLM4_FIRST_SPECIAL + index): {"content": name, "special": True}
        for index, name in enumerate(GLM4_SPECIALS)
    }
    config = {"model_type": "chatglm", "padded_vocab_size": 320}
    return write_json(folder, config, {"added_tokens_decoder": added})


def write_json(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> Path:
    """config.json and tokenizer_config.json; returns the folder."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def change_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; a key set to `None` is taken out."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def _write_pieces(file: Path, **options: Any) -> int:
    """Train a character vocabulary; returns how many pieces it has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(ALPHABET)]),
        model_writer=model,
        model_type="char",
        vocab_size=1000,
        hard_vocab_limit=False,  # as many pieces as there are characters
        character_coverage=1.0,
        byte_fallback=True,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    file.write_bytes(model.getvalue())
    return int(SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size())


def shown(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    pieces = [*map(detokenizer.push, ids), detokenizer.finish()]
    assert detokenizer.text == "".join(pieces)
    return pieces
