"""A whole run on a tiny model: which stages run, on which rows, and what the bundle says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.adapters.bundle import open_bundle
from engine.errors import Conflict, EngineFailure, InvalidBundle, InvalidInput
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from engine.storage import digest_file, folder_of, read_manifest
from feedback_store.examples.types import Demonstration, Side, Unpaired, example_id
from feedback_store.snapshots.snapshot import open_snapshot
from tests.helpers import Tensors, make_bundle
from tests.support.job_events import of_type, steps_of
from tests.support.pairs import row, snapshot_of
from tests.support.runs import NO_DPO, OFF, QUICK, SMALL, Events, frozen, origin, trained
from tuning.dataset import read_training_data
from tuning.jobs.events import DataRead, KernelsChosen, ReferencesRead, StageLeftOut
from tuning.methods.dpo import DpoRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.orpo import OrpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe, recipe_from_dict
from tuning.recipe_sections import ReplayRecipe
from tuning.step_reporter import StepReporter
from tuning.train import run
from tuning.training_run import TrainingRun

pytestmark = pytest.mark.integration

KTO = replace(QUICK, sft=OFF, dpo=NO_DPO, kto=KtoRecipe(epochs=1))


def side(text: str) -> Side:
    return Side(text, "", True, f"answer-{text}", "sha256:base", None)


def thumb(number: int, good: bool) -> Unpaired:
    answer = side(f"Word {number}.")
    return Unpaired(
        id=example_id("unpaired", (answer,), "vote", ("ann",)),
        prompt=(Message("user", f"Say word {number}."),),
        completion=answer,
        label=good,
        source="vote",
        origin=origin(f"conversation-{number}"),
    )


def demonstration(number: int) -> Demonstration:
    answer = side(f"Word {number}.")
    return Demonstration(
        id=example_id("demonstration", (answer,), "vote", ("ann",)),
        prompt=(Message("user", f"Say word {number}."),),
        completion=answer,
        source="vote",
        origin=origin(f"conversation-{number}"),
    )


def manifest_of(home: Path, bundle: str) -> dict[str, Any]:
    return read_manifest(folder_of(Home(home).bundles, bundle))


def train_counts(home: Path, snapshot: str) -> dict[str, int]:
    """How many examples of each kind are on the training side."""
    found: dict[str, int] = read_manifest(folder_of(Home(home).snapshots, snapshot))["counts"][
        "train"
    ]
    return found


def test_the_default_stages_run_one_after_the_other(tmp_path: Path, tiny_base: BaseModel) -> None:
    snapshot = snapshot_of(tmp_path, 6)
    bundle, events = trained(tmp_path, tiny_base, snapshot, QUICK)
    pairs = train_counts(tmp_path, snapshot)["pairs"]
    manifest = manifest_of(tmp_path, bundle)
    assert manifest["rows"] == {"sft": pairs, "dpo": pairs}
    (kernels,) = of_type(events, KernelsChosen)
    assert manifest["kernels"] == kernels.reason == "torch's own kernels, as asked for"
    assert list(dict(steps_of(events))) == ["sft", "dpo"]


def test_kto_learns_from_lone_thumbs(tmp_path: Path, tiny_base: BaseModel) -> None:
    thumbs = [thumb(n, good=n % 3 == 0) for n in range(12)]
    snapshot = frozen(tmp_path, unpaired=thumbs)
    bundle, events = trained(tmp_path, tiny_base, snapshot, KTO, {"kto.beta": "default"})
    train = open_snapshot(Home(tmp_path).snapshots, snapshot).train.unpaired
    good = sum(example.label for example in train)
    bad = len(train) - good
    assert 0 < good < bad
    recipe = json.loads((folder_of(Home(tmp_path).bundles, bundle) / "recipe.json").read_text())
    kto = recipe["values"]["kto"]
    assert (kto["desirable_weight"], kto["undesirable_weight"]) == (bad / good, 1.0)
    assert recipe["origins"] == {
        "kto.beta": "default",
        "kto.desirable_weight": "store",
        "kto.undesirable_weight": "store",
    }
    assert len(steps_of(events)) == -(-len(train) // 8)
    open_bundle(Home(tmp_path).bundles, bundle, tiny_base)


def test_orpo_learns_from_pairs(tmp_path: Path, tiny_base: BaseModel) -> None:
    recipe = replace(QUICK, sft=OFF, dpo=NO_DPO, orpo=OrpoRecipe(epochs=1))
    bundle, events = trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)
    assert {stage for stage, _ in steps_of(events)} == {"orpo"}
    open_bundle(Home(tmp_path).bundles, bundle, tiny_base)


@pytest.mark.parametrize("kind", ["pairs", "demonstrations"])
def test_pairs_alone_or_demonstrations_alone_are_enough(
    kind: str, tmp_path: Path, tiny_base: BaseModel
) -> None:
    examples: dict[str, Any] = {
        "pairs": [row(f"Say {n}.", f"{n}", "No.", conversation=f"c-{n}") for n in range(6)],
        "demonstrations": [demonstration(n) for n in range(6)],
    }
    snapshot = frozen(tmp_path, **{kind: examples[kind]})
    bundle, events = trained(tmp_path, tiny_base, snapshot, QUICK)
    rows = train_counts(tmp_path, snapshot)[kind]
    paired = rows if kind == "pairs" else 0
    assert manifest_of(tmp_path, bundle)["rows"] == {"sft": rows, "dpo": paired}
    assert of_type(events, StageLeftOut) == (
        [] if paired else [StageLeftOut(stage="dpo", reason="dpo needs preference pairs")]
    )


def test_a_correction_that_is_chosen_and_demonstrated_is_learnt_once(
    tmp_path: Path, renderer: Renderer
) -> None:
    pairs = [row(f"Say word {n}.", f"Word {n}.", "No.", conversation=f"c-{n}") for n in range(6)]
    shown = [replace(demonstration(n), origin=origin(f"c-{n}")) for n in range(9)]
    digest = frozen(tmp_path, pairs=pairs, demonstrations=shown)
    snapshot = open_snapshot(Home(tmp_path).snapshots, digest)
    counts = train_counts(tmp_path, digest)
    assert 0 < counts["pairs"] < counts["demonstrations"]

    def answers(wanted: Any) -> int:
        recipe = replace(QUICK, sft=SftRecipe(answers=wanted))
        return len(recipe.sft.rows(read_training_data(renderer, snapshot, recipe)))

    assert answers("chosen") == counts["pairs"]
    assert answers("demonstrations") == answers("both") == counts["demonstrations"]


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(QUICK, sft=OFF), "dpo needs preference pairs"),
        (replace(QUICK, sft=OFF, dpo=NO_DPO, orpo=OrpoRecipe(epochs=1)), "orpo needs preference"),
        (replace(QUICK, sft=SftRecipe(answers="chosen")), "sft needs answers to imitate; dpo"),
    ],
)
def test_a_snapshot_that_has_nothing_for_the_recipe_is_refused(
    recipe: Recipe, reason: str, tmp_path: Path, tiny_base: BaseModel
) -> None:
    snapshot = frozen(tmp_path, demonstrations=[demonstration(n) for n in range(6)])
    with pytest.raises(InvalidInput, match=f"nothing to train on: {reason}"):
        trained(tmp_path, tiny_base, snapshot, recipe)


def test_kto_refuses_a_snapshot_of_good_votes_alone(tmp_path: Path, tiny_base: BaseModel) -> None:
    snapshot = frozen(tmp_path, unpaired=[thumb(n, good=True) for n in range(6)])
    count = train_counts(tmp_path, snapshot)["unpaired"]
    with pytest.raises(InvalidInput, match=f"{count} good and 0 bad"):
        trained(tmp_path, tiny_base, snapshot, KTO)


def test_robust_dpo_takes_the_snapshots_flip_rate(tmp_path: Path, tiny_base: BaseModel) -> None:
    pairs = [row(f"Say {n}.", f"{n}", "No.", conversation=f"c-{n}") for n in range(6)]
    recipe = replace(QUICK, sft=OFF, dpo=DpoRecipe(loss="robust", flip_rate="store"))
    bundle, _ = trained(tmp_path, tiny_base, frozen(tmp_path, pairs=pairs, flip_rate=0.2), recipe)
    assert manifest_of(tmp_path, bundle)["recipe"]["dpo"]["flip_rate"] == 0.2
    with pytest.raises(InvalidInput, match="the snapshot cannot tell"):
        trained(tmp_path, tiny_base, frozen(tmp_path, pairs=pairs), recipe)


def test_what_is_too_long_is_left_out_whole_and_named(tmp_path: Path, tiny_base: BaseModel) -> None:
    pairs = [row(f"Say {n}.", f"{n}", "No.", conversation=f"c-{n}") for n in range(6)]
    long = [row(f"Tell {n}.", "A story. " * 99, "No.", conversation=f"long-{n}") for n in range(3)]
    snapshot = frozen(tmp_path, pairs=[*pairs, *long])
    bundle, events = trained(tmp_path, tiny_base, snapshot, replace(QUICK, dpo=NO_DPO))
    (data,) = of_type(events, DataRead)
    train = open_snapshot(Home(tmp_path).snapshots, snapshot).train.pairs
    conversations = [pair.origin.conversation_id for pair in train]
    named = [name for name in conversations if name.startswith("long")]
    assert named
    assert data.too_long == len(named)
    assert data.too_long_conversations == sorted(named)
    manifest = manifest_of(tmp_path, bundle)
    assert manifest["too_long_conversations"] == sorted(named)
    assert manifest["rows"] == {"sft": len(conversations) - len(named)}
    with pytest.raises(InvalidInput, match=r"none that can be used \(\d longer than max_sequence"):
        trained(tmp_path, tiny_base, frozen(tmp_path, pairs=long), QUICK)


def alpaca(folder: Path, records: int) -> Path:
    file = folder / "more.json"
    rows = [
        {"instruction": f"Count to {n}.", "input": "", "output": f"1 to {n}"}
        for n in range(records)
    ]
    file.write_text(json.dumps(rows))
    return file


def replaying(file: Path, share: float) -> Recipe:
    replay = ReplayRecipe(str(file), share, digest_file(file))
    return replace(QUICK, dpo=NO_DPO, replay=replay)


def test_instruction_data_is_mixed_in_at_its_share_and_named_without_its_folder(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    file = alpaca(tmp_path, 50)
    snapshot = snapshot_of(tmp_path, 12)
    bundle, events = trained(tmp_path, tiny_base, snapshot, replaying(file, 0.4))
    (data,) = of_type(events, DataRead)
    pairs = train_counts(tmp_path, snapshot)["pairs"]
    replayed = round(pairs * 0.4 / 0.6)  # then they are 40% of all
    assert replayed > 1
    assert data.replayed == replayed
    manifest = manifest_of(tmp_path, bundle)
    assert manifest["replay"] == {"rows": replayed, "too_long": 0}
    assert manifest["rows"] == {"sft": pairs + replayed}
    assert manifest["recipe"]["replay"] == {
        "file": "more.json",
        "share": 0.4,
        "digest": digest_file(file),
    }
    published = folder_of(Home(tmp_path).bundles, bundle)
    assert all(str(tmp_path).encode() not in f.read_bytes() for f in published.iterdir())


def test_a_replay_file_that_has_changed_is_refused(tmp_path: Path, tiny_base: BaseModel) -> None:
    recipe = replaying(alpaca(tmp_path, 5), 0.4)
    alpaca(tmp_path, 6)
    with pytest.raises(Conflict, match=r"more\.json has changed"):
        trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)


@pytest.mark.parametrize("reference", ["base", "start"])
def test_on_grown_data_a_base_reference_is_paid_for_new_rows_only(
    reference: Any, tmp_path: Path, tiny_base: BaseModel
) -> None:
    """A start adapter is another one after each run, so its log-probabilities are, too."""
    recipe = replace(QUICK, dpo=DpoRecipe(epochs=1, reference=reference))
    before, after = (snapshot_of(tmp_path, pairs) for pairs in (20, 22))
    _, first = trained(tmp_path, tiny_base, before, recipe)
    _, second = trained(tmp_path, tiny_base, after, recipe)
    old, new = (train_counts(tmp_path, s)["pairs"] for s in (before, after))
    assert new > old
    assert of_type(first, ReferencesRead) == [ReferencesRead(rows=old, cached=0)]
    known = old if reference == "base" else 0
    assert of_type(second, ReferencesRead) == [ReferencesRead(rows=new, cached=known)]


def test_dpos_base_reference_is_not_ktos(tmp_path: Path, tiny_base: BaseModel) -> None:
    """KTO compares with what SFT made, which is another adapter in the second run."""
    pairs = [row(f"Say {n}.", f"{n}", "No.", conversation=f"c-{n}") for n in range(6)]
    thumbs = [thumb(n, good=n % 3 == 0) for n in range(9)]
    snapshot = frozen(tmp_path, pairs=pairs, unpaired=thumbs)
    counts = train_counts(tmp_path, snapshot)
    recipe = replace(QUICK, dpo=DpoRecipe(reference="base"), kto=KtoRecipe(epochs=1))
    other = replace(recipe, sft=SftRecipe(epochs=1, learning_rate=1e-3))
    cached = [
        [
            event.cached
            for event in of_type(trained(tmp_path, tiny_base, snapshot, r)[1], ReferencesRead)
        ]
        for r in (recipe, other)
    ]
    assert cached == [[0, 0], [counts["pairs"], 0]]


def test_a_dora_bundle_is_for_export_and_the_engine_says_so(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    adapter = replace(SMALL, weight_decomposed=True)
    recipe = replace(QUICK, adapter=adapter, dpo=NO_DPO)
    bundle, _ = trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)
    assert "export" in manifest_of(tmp_path, bundle)["export_only"]
    with pytest.raises(InvalidBundle, match="use_dora is not supported"):
        open_bundle(Home(tmp_path).bundles, bundle, tiny_base)


def test_rank_stabilised_lora_is_served(tmp_path: Path, tiny_base: BaseModel) -> None:
    recipe = replace(QUICK, adapter=replace(SMALL, rank_stabilised=True), dpo=NO_DPO)
    bundle, _ = trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)
    folder = open_bundle(Home(tmp_path).bundles, bundle, tiny_base).folder
    assert json.loads((folder / "adapter_config.json").read_text())["use_rslora"] is True


class Poisoned(StepReporter):
    """Breaks the adapter after its twelfth step, once."""

    broken = False

    def on_step_end(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
        if state.global_step == 12 and not Poisoned.broken:
            Poisoned.broken = True
            adapter = next(p for p in kwargs["model"].parameters() if p.requires_grad)
            adapter.data.fill_(float("nan"))


def test_after_a_loss_that_is_not_a_number_the_run_goes_on_from_the_last_good_checkpoint(
    tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(QUICK, sft=SftRecipe(epochs=14, batch_pairs=8), dpo=NO_DPO)
    snapshot = snapshot_of(tmp_path, 6)
    events: Events = []
    job = TrainingRun(
        tiny_base,
        open_snapshot(Home(tmp_path).snapshots, snapshot),
        recipe,
        {},
        tmp_path / "job",
        Home(tmp_path),
    )
    monkeypatch.setattr("tuning.stages.StepReporter", Poisoned)
    monkeypatch.setattr(Poisoned, "broken", False)
    with pytest.raises(EngineFailure, match="is nan at step 13"):
        run(job, events.append)
    assert [p.name for p in (tmp_path / "job" / "sft").glob("checkpoint-*")] == ["checkpoint-10"]
    resumed = run(job, events.append)
    assert [step for _, step in steps_of(events)] == [*range(1, 13), *range(11, 15)]
    whole, _ = trained(tmp_path, tiny_base, snapshot, recipe)
    one, two = (
        load_file(folder_of(Home(tmp_path).bundles, b) / "adapter_model.safetensors")
        for b in (resumed, whole)
    )
    assert all(torch.equal(one[name], two[name]) for name in one | two)


def test_training_goes_on_from_an_imported_adapter_with_its_ranks(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    """With rates near 0 what is trained is what it started from, patterns and scaling included."""
    q = "model.layers.0.self_attn.q_proj"
    patterns = {"rank_pattern": {q: 2}, "alpha_pattern": {q: 6}, "use_rslora": True}

    def cut(tensors: Tensors) -> Tensors:
        a, b = (f"base_model.model.{q}.lora_{side}.weight" for side in "AB")
        return tensors | {a: tensors[a][:2].clone(), b: tensors[b][:, :2].contiguous()}

    start = make_bundle(
        Home(tmp_path).bundles,
        tiny_base,
        config=patterns,
        manifest={"snapshot": None, "origin": "imported"},
        doctor=cut,
    )
    recipe = replace(
        QUICK,
        sft=SftRecipe(epochs=1, learning_rate=1e-9),
        dpo=DpoRecipe(epochs=1, learning_rate=1e-9),
    )
    recipe = replace(recipe, adapter=replace(SMALL, start=start))
    bundle, _ = trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)
    files = [folder_of(Home(tmp_path).bundles, digest) for digest in (start, bundle)]
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in files)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    config = json.loads((files[1] / "adapter_config.json").read_text())
    assert {key: config[key] for key in patterns} == patterns
    recorded = manifest_of(tmp_path, bundle)["recipe"]["adapter"]
    assert {key: recorded[key] for key in ("start", "rank", "alpha", "rank_stabilised")} == {
        "start": start,
        "rank": 4,
        "alpha": 8,
        "rank_stabilised": True,
    }


def test_a_start_that_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    other = make_bundle(Home(tmp_path).bundles, tiny_base, manifest={"base_digest": "another"})
    recipe = replace(QUICK, adapter=replace(SMALL, start=other))
    with pytest.raises(InvalidBundle, match="base_digest"):
        trained(tmp_path, tiny_base, snapshot_of(tmp_path, 6), recipe)
    with pytest.raises(InvalidInput, match="the whole id of a bundle"):
        recipe_from_dict({"adapter": {"start": "abcd"}})
    with pytest.raises(InvalidInput, match=r"no adapter\.weight_decomposed"):
        recipe_from_dict({"adapter": {"start": other, "weight_decomposed": True}})
