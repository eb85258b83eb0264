"""Continued pretraining: how plain text becomes blocks, and a run on nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.bundle import open_bundle
from engine.errors import Conflict, InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from feedback_store.examples.types import Examples
from feedback_store.snapshots.snapshot import freeze
from tests.support.job_events import of_type
from tests.support.runs import NO_DPO, OFF, QUICK, trained
from tuning.jobs.events import DataRead, StepDone
from tuning.methods.pretrain import PretrainRecipe
from tuning.recipe import read_recipe, recipe_from_dict
from tuning.text_blocks import cut_blocks, digest_text, read_blocks

STORY = "The cat sat on the warm stone and looked at the water. " * 12


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "b.txt").write_text("The sea.")
    (folder / "a.md").write_text("Bread needs flour.")
    (folder / "more" / "c.jsonl").write_text(
        '{"text": "Salt."}\n\n{"text": " "}\n{"text": "A\\u2028B"}'
    )
    (folder / "image.png").write_bytes(b"\x89PNG")
    return folder


def recipe_of(text: Path, **values: Any) -> PretrainRecipe:
    return replace(PretrainRecipe(epochs=1, block_tokens=16, text=str(text)), **values)


def test_documents_lie_end_to_end_and_no_lone_token_is_left() -> None:
    documents = [[1, 2, 0], [3, 0], [4, 5, 6, 0]]
    assert cut_blocks(documents, 4) == [[1, 2, 0, 3], [0, 4, 5, 6]]  # the last 0 is alone
    assert cut_blocks(documents, 5) == [[1, 2, 0, 3, 0], [4, 5, 6, 0]]
    assert cut_blocks([], 4) == []


def test_each_file_and_each_line_is_a_document_closed_by_the_end_token(
    texts: Path, renderer: Renderer
) -> None:
    end = renderer.tokenizer.eos_token_id
    (block,) = read_blocks(renderer, recipe_of(texts, block_tokens=400))
    documents = renderer.tokenizer.decode(block).split("<|im_end|>")
    assert documents == ["Bread needs flour.", "The sea.", "Salt.", "A\u2028B", ""]
    assert block.count(end) == 4


def test_control_token_text_stays_text(tmp_path: Path, renderer: Renderer) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one <|im_end|> two <|im_start|>")
    (block,) = read_blocks(renderer, recipe_of(file, block_tokens=400))
    assert block.count(renderer.tokenizer.eos_token_id) == 1
    assert renderer.tokenizer.bos_token_id not in block


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("a.txt", b"\xff\xfe\x00", "a.txt is not text in UTF-8"),
        ("a.jsonl", b'{"text": 1}', "line 1 of a.jsonl"),
        ("a.jsonl", b'{"text": "x"}\n{"prompt": "x"}', "line 2 of a.jsonl"),
        ("a.pdf", b"%PDF", "no file of .txt, .md, .jsonl"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(
    tmp_path: Path, renderer: Renderer, name: str, content: bytes, refusal: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=refusal):
        read_blocks(renderer, recipe_of(tmp_path))


def test_a_recipe_finds_the_text_beside_it_and_refuses_one_that_changed(
    texts: Path, renderer: Renderer
) -> None:
    file = texts.parent / "recipe.yaml"
    file.write_text("pretrain: {epochs: 1, text: texts}")
    found = read_recipe(file).pretrain
    assert (found.text, found.digest) == (str(texts), digest_text(texts))
    (texts / "new.txt").write_text("more")
    with pytest.raises(Conflict, match="the text texts has changed"):
        read_blocks(renderer, found)
    file.write_text("pretrain: {epochs: 1, text: nowhere}")
    with pytest.raises(InvalidInput, match=r"pretrain\.text"):
        read_recipe(file)


def test_a_recipe_without_a_text_or_with_longer_blocks_than_rows_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"pretrain\.epochs needs pretrain\.text"):
        recipe_from_dict({"pretrain": {"epochs": 1}})
    with pytest.raises(InvalidInput, match=r"pretrain\.block_tokens must not exceed"):
        recipe_from_dict({"pretrain": {"epochs": 1, "text": "x", "block_tokens": 2000}})


@pytest.mark.integration
def test_a_run_on_text_alone_needs_no_feedback_and_learns_the_text(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    file = tmp_path / "private-name.txt"
    file.write_text(STORY)
    home = tmp_path / "home"
    with pytest.raises(InvalidInput, match="nothing to train on yet"):
        freeze(Home(home).snapshots, Examples(), last_event=0)
    snapshot = freeze(Home(home).snapshots, Examples(), last_event=0, may_be_empty=True)
    pretrain = recipe_of(file, epochs=6, block_tokens=64, batch_blocks=2, learning_rate=1e-2)
    recipe = replace(QUICK, pretrain=pretrain, sft=OFF, dpo=NO_DPO)
    bundle, events = trained(home, tiny_base, snapshot, recipe)
    losses = [event.loss for event in of_type(events, StepDone)]
    assert losses[-1] < 0.8 * losses[0]
    (data,) = of_type(events, DataRead)
    manifest = open_bundle(Home(home).bundles, bundle, tiny_base).manifest
    assert manifest["rows"] == {"pretrain": data.blocks}
    assert manifest["recipe"]["pretrain"]["text"] == "private-name.txt"
    assert data.blocks > 1
