"""A bundle that is damaged, hostile or made for another model is refused, and the reason is named.

The doctored bundles are published whole, so that their digests are right: what refuses them is
the look at their content.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapters.bundle import open_bundle
from engine.adapters.lora_config import MAX_RANK
from engine.errors import InvalidBundle, UnknownId
from engine.models.catalogue import BaseModel, linear_shapes
from engine.storage import PIECE_BYTES, digest_bytes, folder_of
from tests.helpers import NO_SNAPSHOT, Tensors, make_bundle

WEIGHTS = "adapter_model.safetensors"
MODULE = "model.layers.0.self_attn.q_proj"
A, B = (f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


@pytest.fixture
def problems(root: Path, tiny_base: BaseModel) -> Callable[..., list[str]]:
    """Publishes a doctored bundle and returns why it is refused."""

    def refused(**doctored: Any) -> list[str]:
        digest = make_bundle(root, tiny_base, **doctored)
        with pytest.raises(InvalidBundle) as raised:
            open_bundle(root, digest, tiny_base)
        assert all(problem in str(raised.value) for problem in raised.value.problems)
        return raised.value.problems

    return refused


def test_a_bundle_is_checked_in_small_pieces(root: Path, tiny_base: BaseModel) -> None:
    """So that running streams get their tokens between them."""

    def write_more(folder: Path) -> None:
        (folder / "README.md").write_bytes(b"x" * (3 * PIECE_BYTES))

    breaths: list[None] = []
    digest = make_bundle(root, tiny_base, write_more=write_more)
    open_bundle(root, digest, tiny_base, lambda: breaths.append(None))
    matrices = 2 * len(linear_shapes(tiny_base.folder))
    assert len(breaths) >= 3 + matrices


def with_tensor(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    return {"doctor": lambda tensors: tensors | {key: change(tensors[key]).contiguous()}}


def with_value(value: float) -> dict[str, Any]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[-1, -1] = value
        return tensor

    return with_tensor(A, change)


def test_a_good_bundle_opens(root: Path, tiny_base: BaseModel) -> None:
    digest = make_bundle(root, tiny_base)
    bundle = open_bundle(root, digest, tiny_base)
    assert bundle.digest == digest
    assert bundle.folder == folder_of(root, digest)
    assert bundle.manifest["base_digest"] == tiny_base.digest
    assert bundle.manifest["snapshot"] == NO_SNAPSHOT
    assert sorted(bundle.manifest["files"]) == ["adapter_config.json", WEIGHTS]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_may_be_half_precision(
    root: Path, tiny_base: BaseModel, dtype: torch.dtype
) -> None:
    digest = make_bundle(
        root, tiny_base, doctor=lambda tensors: {k: t.to(dtype) for k, t in tensors.items()}
    )
    assert open_bundle(root, digest, tiny_base)


def test_a_recipe_and_a_readme_may_lie_beside_the_weights(root: Path, tiny_base: BaseModel) -> None:
    def write_more(folder: Path) -> None:
        (folder / "recipe.json").write_text("{}")
        (folder / "README.md").write_text("Made by hand.")

    assert open_bundle(root, make_bundle(root, tiny_base, write_more=write_more), tiny_base)


def test_of_200_bundles_damaged_on_disk_200_are_refused(root: Path, tiny_base: BaseModel) -> None:
    digest = make_bundle(root, tiny_base)
    folder = folder_of(root, digest)
    files = sorted(folder.iterdir())
    dice = random.Random(0)
    refused = 0
    for number in range(200):
        file = files[number % len(files)]
        whole = file.read_bytes()
        where = dice.randrange(len(whole))
        if dice.random() < 0.25:
            file.write_bytes(whole[:where])
        else:
            flipped = whole[where] ^ (1 << dice.randrange(8))
            file.write_bytes(whole[:where] + bytes([flipped]) + whole[where + 1 :])
        with pytest.raises(InvalidBundle):
            open_bundle(root, digest, tiny_base)
        refused += 1
        file.write_bytes(whole)
    assert refused == 200
    assert open_bundle(root, digest, tiny_base)


@pytest.mark.parametrize("name", ["manifest.json", "adapter_config.json", WEIGHTS])
def test_a_bundle_that_lost_a_file_or_its_content_is_refused(
    root: Path, tiny_base: BaseModel, name: str
) -> None:
    digest = make_bundle(root, tiny_base)
    file = folder_of(root, digest) / name
    file.write_bytes(b"")
    with pytest.raises(InvalidBundle, match=r"manifest|" + name):
        open_bundle(root, digest, tiny_base)
    file.unlink()
    with pytest.raises(InvalidBundle, match=r"manifest|" + name):
        open_bundle(root, digest, tiny_base)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(
    problems: Callable[..., list[str]], value: float
) -> None:
    assert problems(**with_value(value)) == [f"{A} holds NaN or infinite values"]


def test_weights_of_a_huge_norm_are_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(**with_value(1e6)) == [f"{A} has norm 1e+06, over the limit of 1000"]
    assert problems(**with_value(1e30)) == [f"{A} has norm inf, over the limit of 1000"]


def test_weights_that_are_integers_are_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(**with_tensor(A, lambda t: t.to(torch.int32))) == [
        f"{A} holds torch.int32, not one of torch.float16, torch.bfloat16, torch.float32"
    ]


def test_an_adapter_for_another_base_is_refused(problems: Callable[..., list[str]]) -> None:
    other = "sha256:" + "1" * 64
    assert problems(manifest={"base_digest": other}) == [
        f"base_digest: trained for another base model ({other})"
    ]


def test_a_bundle_of_another_format_is_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(manifest={"format": "burnish-bundle/9"}) == [
        "format is 'burnish-bundle/9', not 'burnish-bundle/1'"
    ]


@pytest.mark.parametrize("rank", [MAX_RANK + 1, 0, -1, "4", 4.0, None])
def test_a_rank_outside_the_limits_is_refused(
    problems: Callable[..., list[str]], rank: object
) -> None:
    assert problems(config={"r": rank}) == [f"r is {rank!r}; it must lie in 1..256"]


def test_a_rank_that_the_weights_do_not_have_is_refused(
    problems: Callable[..., list[str]], tiny_base: BaseModel
) -> None:
    found = problems(config={"r": 8})
    assert f"{A} has shape (4, 32), not (8, 32)" in found
    assert len(found) == 2 * len(linear_shapes(tiny_base.folder))


def test_a_matrix_of_the_wrong_shape_is_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(**with_tensor(B, lambda t: t[:-1])) == [f"{B} has shape (31, 4), not (32, 4)"]


def without(*keys: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: t for k, t in tensors.items() if k not in keys}


def test_half_a_pair_of_matrices_is_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(doctor=without(B)) == [f"{MODULE} has only lora_A"]
    assert problems(doctor=without(A)) == [f"{MODULE} has only lora_B"]


def test_weights_without_any_lora_matrix_are_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(doctor=lambda tensors: {}) == [f"{WEIGHTS} holds no LoRA matrices"]


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight",  # no such layer
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"base_model.model.{MODULE}.lora_magnitude_vector.weight",
        f"base_model.model.{MODULE}.weight",
        "../../etc/passwd",
    ],
)
def test_a_tensor_that_is_no_lora_matrix_of_this_base_is_refused(
    problems: Callable[..., list[str]], key: str
) -> None:
    found = problems(doctor=lambda tensors: tensors | {key: torch.zeros(4, 32)})
    assert f"{key} is not a LoRA matrix of this base model" in found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("lora_bias", True),
        ("bias", "all"),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["q_proj.weight"]),
        ("auto_mapping", {"base_model_class": "X"}),
    ],
)
def test_a_kind_of_adapter_that_is_not_served_is_refused_by_its_field(
    problems: Callable[..., list[str]], field: str, value: object
) -> None:
    assert problems(config={field: value}) == [f"{field} is not supported"]


def test_what_is_not_lora_is_refused(problems: Callable[..., list[str]]) -> None:
    assert problems(config={"peft_type": "IA3"}) == ["peft_type is 'IA3', not 'LORA'"]
    assert problems(config={"lora_alpha": "8"}) == ["lora_alpha is '8'; it must lie in (0, 64 r]"]


class Bomb:
    """What unpickling it would do can be seen afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_weights_are_not_unpickled_under_any_name(
    problems: Callable[..., list[str]], tmp_path: Path
) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))

    def renamed(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(bomb)

    def honest(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / "adapter_model.bin").write_bytes(bomb)

    [problem] = problems(write_more=renamed)
    assert problem.startswith(f"{WEIGHTS} cannot be read")
    found = problems(write_more=honest)
    assert "files: unexpected adapter_model.bin" in found
    assert any(problem.startswith(f"{WEIGHTS} cannot be read") for problem in found)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)
    assert (tmp_path / "exploded").exists(), "the bomb is a dud: the test shows nothing"


def test_a_file_that_has_no_place_in_a_bundle_is_refused(
    problems: Callable[..., list[str]],
) -> None:
    def write_more(folder: Path) -> None:
        (folder / "modeling_evil.py").write_text("import os")

    assert problems(write_more=write_more) == ["files: unexpected modeling_evil.py"]


def test_a_configuration_that_is_no_json_is_refused(problems: Callable[..., list[str]]) -> None:
    def write_more(folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{r: 4")

    (problem,) = problems(write_more=write_more)
    assert problem.startswith("adapter_config.json cannot be read: ")


def test_every_reason_is_given_at_once(problems: Callable[..., list[str]]) -> None:
    found = problems(
        manifest={"base_digest": "another"},
        config={"use_dora": True, "modules_to_save": ["lm_head"], "r": 4000},
        write_more=lambda folder: (folder / "x.py").write_text(""),
    )
    assert found == [
        "base_digest: trained for another base model (another)",
        "files: unexpected x.py",
        "r is 4000; it must lie in 1..256",
        "use_dora is not supported",
        "modules_to_save is not supported",
    ]


def test_a_bundle_under_another_bundles_id_is_refused(root: Path, tiny_base: BaseModel) -> None:
    one, other = make_bundle(root, tiny_base, seed=1), make_bundle(root, tiny_base, seed=2)
    shutil.rmtree(folder_of(root, one))
    folder_of(root, other).rename(folder_of(root, one))
    with pytest.raises(InvalidBundle, match=r"manifest\.json does not match the id"):
        open_bundle(root, one, tiny_base)


@pytest.mark.parametrize("name", ["../x", "/etc", "owner/name", "a\x00b", ""])
def test_what_is_no_id_opens_nothing(root: Path, tiny_base: BaseModel, name: str) -> None:
    with pytest.raises(UnknownId):
        open_bundle(root, name, tiny_base)


def test_a_bundle_that_is_not_there_is_refused(root: Path, tiny_base: BaseModel) -> None:
    with pytest.raises(InvalidBundle, match="no readable manifest"):
        open_bundle(root, "sha256:" + "0" * 64, tiny_base)


def forged(root: Path, manifest_bytes: bytes) -> str:
    digest = digest_bytes(manifest_bytes)
    folder_of(root, digest).mkdir(parents=True)
    (folder_of(root, digest) / "manifest.json").write_bytes(manifest_bytes)
    return digest


@pytest.mark.parametrize(
    "manifest",
    [b'{"files":[]}', b'{"files":null}', b'{"a":NaN}', b'{"a":"\\ud800"}', b"[" * 100_000],
    ids=["list", "null", "nan", "surrogate", "deep"],
)
def test_a_forged_manifest_is_refused_not_a_crash(
    tiny_base: BaseModel, tmp_path: Path, manifest: bytes
) -> None:
    digest = forged(tmp_path, manifest)
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)
