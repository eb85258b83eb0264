"""A tokenizer as GGUF metadata, as llama.cpp reads it.

That of a model that came as a GGUF file is copied. Otherwise it is read from `tokenizer.json`:
byte-level BPE (`gpt2` in GGUF), whose rule of splitting text llama.cpp must know by a name, or
SentencePiece's BPE with bytes as the last resort (`llama`). Others are refused. Knows no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType

from engine.errors import InvalidInput
from engine.prompts.load import load_renderer

COPIED = "tokenizer."
SINGLE_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# The names of a split that is one regular expression, by whether merges are skipped for a word that
# is a token itself; the expressions are transformers' (`GGUF_PRE_TOKENIZER_SPLITS`)
SPLIT_NAMES = {
    ("llama-bpe", True): "llama-bpe",
    ("llama-bpe", False): "smaug-bpe",
    ("tekken", True): "tekken",
    ("qwen2", False): "qwen2",
    ("gpt-4o", False): "gpt-4o",
}


def copy_tokenizer(writer: GGUFWriter, gguf: Path) -> None:
    """Copy the tokenizer and the chat template of a GGUF file."""
    for key, field in GGUFReader(gguf).fields.items():
        if not key.startswith(COPIED):
            continue
        kind, value = field.types[0], field.contents()
        if kind == GGUFValueType.ARRAY:
            writer.add_key_value(key, value, kind, field.types[-1])
        else:
            writer.add_key_value(key, value, kind)


def add_tokenizer(writer: GGUFWriter, folder: Path, rows: int) -> None:
    """Add the tokenizer of a checkpoint whose embedding has `rows` rows.

    Raises `InvalidInput` for a tokenizer that llama.cpp does not have.
    """
    renderer: Any = load_renderer(folder)
    tokenizer = renderer.tokenizer
    document = _document(tokenizer)
    model, split = _kind(document)
    tokens = list(_tokens(tokenizer, document, rows))
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(split)
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_types([kind.value for _, kind, _ in tokens])
    if model == "llama":
        writer.add_token_scores([score for _, _, score in tokens])
        writer.add_add_space_prefix(_has_space_prefix(document))
    else:
        writer.add_token_merges([" ".join(pair) for pair in _merges(document)])
        writer.add_add_space_prefix(False)
    writer.add_add_bos_token(adds_bos(tokenizer))
    _add_special_ids(writer, tokenizer, renderer.end_ids)
    writer.add_chat_template(tokenizer.chat_template)


def tokenizer_problem(folder: Path) -> str | None:
    """The reason why a checkpoint's tokenizer cannot be written; None if it can."""
    renderer: Any = load_renderer(folder)
    try:
        _kind(_document(renderer.tokenizer))
    except InvalidInput as error:
        return str(error)
    return None


def _document(tokenizer: Any) -> dict[str, Any]:
    """The contents of the `tokenizer.json` that the tokenizer would be saved as."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InvalidInput("its tokenizer has no tokenizer.json, from which GGUF's would be made")
    document: dict[str, Any] = json.loads(backend.to_str())
    return document


def _kind(document: Mapping[str, Any]) -> tuple[str, str]:
    """`tokenizer.ggml.model` and `tokenizer.ggml.pre`; raises `InvalidInput`."""
    model = document["model"]
    if model["type"] != "BPE":
        raise InvalidInput(f"its tokenizer is a {model['type']} model, not BPE")
    if model.get("byte_fallback"):
        return "llama", "default"
    splits = document.get("pre_tokenizer") or {}
    steps = splits.get("pretokenizers", [splits])
    name = _split_name(steps, bool(model.get("ignore_merges")))
    if name is None:
        raise InvalidInput("its tokenizer splits text by a rule that llama.cpp has no name for")
    return "gpt2", name


def _split_name(steps: list[Mapping[str, Any]], ignore_merges: bool) -> str | None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    by_gpt2 = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_gpt2:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and by_gpt2 and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not by_gpt2:
        rule = steps[0]["pattern"].get("Regex")
        for (name, skips), written in SPLIT_NAMES.items():
            if (rule, ignore_merges) == (GGUF_PRE_TOKENIZER_SPLITS[name], skips):
                return written
    return None


def _tokens(
    tokenizer: Any, document: Mapping[str, Any], rows: int
) -> Iterator[tuple[str, TokenType, float]]:
    """Text, type and score of each row of the embedding.

    SentencePiece joins the pair with the highest score first, so a piece's score is the place of
    its first merge, counted down.
    """
    texts = {index: text for text, index in tokenizer.get_vocab().items()}
    if texts and max(texts) >= rows:
        raise InvalidInput(f"its tokenizer has {max(texts) + 1} tokens, its embedding {rows} rows")
    added = tokenizer.added_tokens_decoder
    pieces = bool(document["model"].get("byte_fallback"))
    unknown = document["model"].get("unk_token")
    scores: dict[str, float] = {}
    if pieces:
        for place, pair in enumerate(_merges(document)):
            scores.setdefault("".join(pair), -float(place))
    for index in range(rows):
        text = texts.get(index)
        if text is None:
            yield f"[PAD{index}]", TokenType.UNUSED, -1000.0
        elif pieces and text == unknown:
            yield text, TokenType.UNKNOWN, 0.0
        elif index in added:
            special = added[index].special
            kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
            yield added[index].content, kind, 0.0
        elif pieces and SINGLE_BYTE.fullmatch(text):
            yield text, TokenType.BYTE, 0.0
        else:
            yield text, TokenType.NORMAL, scores.get(text, -1e6)


def _merges(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The pairs that are joined, the first ones first; older files have them as one text."""
    for pair in document["model"]["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        yield left, right


def _has_space_prefix(document: Mapping[str, Any]) -> bool:
    """Return whether a space is put before a text, by a Metaspace or by a Prepend of its sign."""
    steps: list[Mapping[str, Any]] = []
    for part in ("normalizer", "pre_tokenizer"):
        found = document.get(part) or {}
        steps += found.get("normalizers") or found.get("pretokenizers") or [found]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer of a checkpoint puts its begin token before every text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _add_special_ids(writer: GGUFWriter, tokenizer: Any, end_ids: Collection[int]) -> None:
    """The tokens with a meaning. Beside the end of a text, two others may end an answer."""
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(end_ids)
    others = sorted(set(end_ids) - {eos})
    ids = {
        writer.add_eos_token_id: eos,
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
        **dict(zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False)),
    }
    for add, index in ids.items():
        if index is not None:
            add(index)
