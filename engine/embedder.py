"""An embedding model of a local folder: texts to vectors of length 1, for search by meaning.

Reads what sentence-transformers publishes: an encoder of transformers in safetensors, the pooling
of its token states (`1_Pooling/config.json`) and the prompts of questions and passages, if it has
any. No code of the folder's is run. Knows torch; knows nothing of documents and rankings.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InvalidInput
from engine.storage import digest_file

Vectors = npt.NDArray[np.float32]  # (texts, dimensions)
ENCODER_WEIGHTS, ENCODER_CONFIG = "model.safetensors", "config.json"
TEXTS_IN_A_BATCH = 32
MOST_TOKENS = 512  # where the model names no limit; encoders of this kind have as many positions


class TextEmbedder:
    """One embedding model, loaded at first use. For several threads.

    Raises `InvalidInput` for a folder that is none of such a model.
    """

    def __init__(self, folder: Path) -> None:
        for name in (ENCODER_CONFIG, ENCODER_WEIGHTS):
            if not (folder / name).is_file():
                raise InvalidInput(f"the embedding model's folder {folder} has no {name}")
        self._folder = folder
        self._lock = threading.Lock()
        self._is_first = _pools_the_first_token(folder)
        prompts = _read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        self._of_question = str(prompts.get("query", ""))
        self._of_passage = str(prompts.get("document", prompts.get("passage", "")))

    @cached_property
    def digest(self) -> str:
        """The digest of the weights, by which vectors are known to be this model's."""
        return digest_file(self._folder / ENCODER_WEIGHTS)

    def embed_question(self, question: str) -> Vectors:
        """Return the vector of a question, (1, dimensions)."""
        return self._embed([self._of_question + question])

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of passages, (texts, dimensions)."""
        begins = range(0, len(texts), TEXTS_IN_A_BATCH)
        said = [self._of_passage + text for text in texts]
        return np.concatenate([self._embed(said[at : at + TEXTS_IN_A_BATCH]) for at in begins])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        import torch

        with self._lock, torch.inference_mode():
            tokenizer, model = self._loaded
            limit = min(tokenizer.model_max_length, _positions_of(model.config))
            batch = tokenizer(
                list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
            )
            states = model(**batch).last_hidden_state  # (texts, tokens, dimensions)
            if self._is_first:
                pooled = states[:, 0]
            else:
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1)
            vectors = torch.nn.functional.normalize(pooled.float(), dim=-1)
        found: Vectors = vectors.numpy()
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model."""
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        local: Any = {"local_files_only": True}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, **local)
            model = AutoModel.from_pretrained(self._folder, use_safetensors=True, **local)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            said = f"the embedding model in {self._folder} cannot be loaded: {error}"
            raise InvalidInput(said) from error
        return tokenizer, model.eval()


def _pools_the_first_token(folder: Path) -> bool:
    """Return whether a text's vector is its first token's; else it is the mean of all tokens'."""
    pooling = _read_json(folder / "1_Pooling" / ENCODER_CONFIG)
    modes = {name for name, is_on in pooling.items() if name.startswith("pooling_mode") and is_on}
    if modes - {"pooling_mode_mean_tokens", "pooling_mode_cls_token"} or len(modes) > 1:
        raise InvalidInput(f"the embedding model in {folder} pools by {', '.join(sorted(modes))}")
    return "pooling_mode_cls_token" in modes


def _positions_of(config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or MOST_TOKENS
    return int(positions) - (2 if config.model_type in ("roberta", "xlm-roberta") else 0)


def _read_json(file: Path) -> dict[str, Any]:
    """A file's object; empty where there is none."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
