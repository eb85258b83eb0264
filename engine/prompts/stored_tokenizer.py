"""A tokenizer as transformers made it, stored, and run by the `tokenizers` library alone.

transformers chooses a class for a checkpoint's tokenizer and may build its parts anew, so that its
files alone do not say what it does. What comes out is a tokenizer of the `tokenizers` library and a
few values. They are stored at the first start under the model's digest; later starts open them and
do not import transformers, which takes seconds and 130 MB. Knows nothing of prompts.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tokenizers

from engine.errors import StorageFull
from engine.prompts.chat_template import ChatTemplate
from engine.storage import digest_bytes, digest_json, write_atomically

TOKENIZER_FORMAT = "burnish-tokenizer/1"
TOKENIZERS_FOLDER = "tokenizers"  # of the model cache


class StoredTokenizer:
    """Implements `Tokenizer` of `render.py` as the tokenizer of transformers does."""

    def __init__(self, backend: str, values: Mapping[str, Any]) -> None:
        self.backend_tokenizer = tokenizers.Tokenizer.from_str(backend)
        self.chat_template: Any = values["chat_template"]
        self.eos_token_id: Any = values["eos_token_id"]
        self._special_tokens: dict[str, str] = values["special_tokens"]

    @property
    def added_tokens_decoder(self) -> Mapping[int, tokenizers.AddedToken]:
        """See `Tokenizer`."""
        found: Mapping[int, tokenizers.AddedToken] = (
            self.backend_tokenizer.get_added_tokens_decoder()
        )
        return found

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.chat_template, self._special_tokens)

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """See `Tokenizer`; it tokenizes nothing."""
        assert not tokenize
        return self._template.render(
            conversation, add_generation_prompt=add_generation_prompt, **variables
        )

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool
    ) -> list[int]:
        """See `Tokenizer`. Not for several threads, since the library holds the last option."""
        self.backend_tokenizer.encode_special_tokens = split_special_tokens
        encoding = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """See `Tokenizer`."""
        text: str = self.backend_tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens
        )
        return text

    def get_vocab(self) -> dict[str, int]:
        """See `Tokenizer`."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary


def stored_tokenizer(model_cache: Path, digest: str, load: Callable[[], Any]) -> Any:
    """The tokenizer of the model with a digest: the stored one, else what `load` returns, which is
    stored for the next start.

    `load` returns a tokenizer of transformers; one that does more than a `StoredTokenizer` can is
    returned as it is. What is stored is of one version of the libraries.
    """
    libraries = {name: version(name) for name in ("transformers", "tokenizers")}
    key = digest_json({"format": TOKENIZER_FORMAT, "model": digest, **libraries})
    file = model_cache / TOKENIZERS_FOLDER / f"{key[7:]}.json"
    found = _read(file)
    if found is None:
        loaded = load()
        found = _described(loaded)
        if found is None:
            return loaded
        with contextlib.suppress(OSError, StorageFull):  # a cache that cannot be written
            _write(file, *found)
    return StoredTokenizer(*found)


def _described(tokenizer: Any) -> tuple[str, dict[str, Any]] | None:
    """A tokenizer's backend as JSON and its values; None if it does more than them.

    It must be of `TokenizersBackend`, with the encoding and decoding of that class, and not clean
    up blanks in decoded text.
    """
    from transformers import TokenizersBackend

    kind = type(tokenizer)
    ours = ("encode", "_encode_plus", "decode", "_decode", "apply_chat_template", "get_vocab")
    if not isinstance(tokenizer, TokenizersBackend) or any(
        getattr(kind, name) is not getattr(TokenizersBackend, name) for name in ours
    ):
        return None
    backend = copy.copy(tokenizer.backend_tokenizer)
    if tokenizer.clean_up_tokenization_spaces and (
        type(backend.model).__name__ != "BPE"  # for which transformers does not
        or tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    ):
        return None
    backend.no_padding()
    backend.no_truncation()
    values = {
        "chat_template": tokenizer.chat_template,
        "eos_token_id": tokenizer.eos_token_id,
        "special_tokens": tokenizer.special_tokens_map,
    }
    return backend.to_str(), values


def _write(file: Path, backend: str, values: Mapping[str, Any]) -> None:
    """A line with the values and the digest of all, then the backend."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"values": values, "check": _check(backend, values)})
    write_atomically(file, f"{head}\n{backend}".encode())


def _read(file: Path) -> tuple[str, dict[str, Any]] | None:
    """The content that `_write` wrote; None where there is no such file or it is damaged."""
    try:
        head, _, backend = file.read_text("utf-8").partition("\n")
        found = json.loads(head)
        values: dict[str, Any] = found["values"]
        sound = found["check"] == _check(backend, values)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return (backend, values) if sound else None


def _check(backend: str, values: Mapping[str, Any]) -> str:
    return digest_json([digest_bytes(backend.encode()), values])
