"""An embedding model of a folder: pooling, padding, prompts, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from engine.embedder import TextEmbedder
from engine.errors import InvalidInput

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "otter", "sleeps", "query", ":"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder of random weights, as sentence-transformers would publish it."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=12, **sizes
    )
    BertModel(config).save_pretrained(folder)
    return folder


def with_file(folder: Path, copy: Path, name: str, content: Any) -> Path:
    """The model with one more JSON file."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    target = copy / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(content))
    return copy


def states_of(folder: Path, text: str) -> torch.Tensor:
    """The states of a text's tokens, by transformers itself: (tokens, dimensions)."""
    batch = BertTokenizerFast.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        states: torch.Tensor = BertModel.from_pretrained(folder).eval()(**batch)[0][0]
    return states


def length_1(vector: torch.Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (vector / vector.norm()).numpy()
    return found


def test_a_vector_is_the_mean_of_the_tokens_states_whatever_stands_beside_it(folder: Path) -> None:
    texts = ["the otter", "the otter sleeps the otter sleeps", "sleeps"]
    vectors = TextEmbedder(folder).embed_passages(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector == pytest.approx(length_1(states_of(folder, text).mean(0)), abs=1e-5)
    many = TextEmbedder(folder).embed_passages(texts * 20)  # two batches
    assert many[-3:] == pytest.approx(vectors, abs=1e-5)


def test_a_model_that_says_so_pools_the_first_token(folder: Path, tmp_path: Path) -> None:
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    first = with_file(folder, tmp_path / "first", "1_Pooling/config.json", pooling)
    (vector,) = TextEmbedder(first).embed_passages(["the otter"])
    assert vector == pytest.approx(length_1(states_of(folder, "the otter")[0]), abs=1e-5)


def test_a_question_has_its_own_prompt_where_the_model_names_one(
    folder: Path, tmp_path: Path
) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": ""}}
    named = with_file(folder, tmp_path / "named", "config_sentence_transformers.json", prompts)
    embedder, plain = TextEmbedder(named), TextEmbedder(folder)
    expected = plain.embed_question("query: the otter")
    assert embedder.embed_question("the otter") == pytest.approx(expected, abs=1e-6)
    same = plain.embed_passages(["the otter"])
    assert embedder.embed_passages(["the otter"]) == pytest.approx(same, abs=1e-6)
    assert embedder.digest == plain.digest


def test_a_text_over_the_models_limit_is_cut(folder: Path) -> None:
    embedder = TextEmbedder(folder)  # 12 positions, two of them for [CLS] and [SEP]
    cut = embedder.embed_passages(["otter " * 10])
    assert embedder.embed_passages(["otter " * 5_000]) == pytest.approx(cut, abs=1e-5)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
    ],
)
def test_another_pooling_is_refused_by_name(
    folder: Path, tmp_path: Path, pooling: dict[str, bool]
) -> None:
    other = with_file(folder, tmp_path / "other", "1_Pooling/config.json", pooling)
    with pytest.raises(InvalidInput, match="pools by pooling_mode_"):
        TextEmbedder(other)


def test_a_folder_that_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no config\.json"):
        TextEmbedder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"has no model\.safetensors"):
        TextEmbedder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        TextEmbedder(tmp_path).embed_question("the otter")
