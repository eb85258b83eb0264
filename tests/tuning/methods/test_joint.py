"""The joint objective, from the papers' formulas on plain forward passes."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model

from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from feedback_store.examples.types import Demonstration, Unpaired, example_id
from tests.support.losses import Recorder, plain_model, token_logprobs
from tests.support.packed_training import Watch, tuned_model
from tests.support.pairs import row
from tests.support.runs import frozen, origin
from tests.support.runs import trained as run_of
from tuning.dataset import tokenize, tokenize_answers
from tuning.jobs.events import StepDone
from tuning.methods import joint_trainer
from tuning.methods.base import TrainedKind
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe, read_contributions
from tuning.methods.joint_batch import lend_mismatched
from tuning.methods.joint_trainer import contributions
from tuning.methods.sft import SftRecipe
from tuning.methods.stage import Stage
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe
from tuning.rows import TokenizedPairs, TrainingData

pytestmark = pytest.mark.integration

BETA, SMOOTHING, PAIR_SFT, DEMONSTRATION, GOOD, BAD = 0.5, 0.1, 0.2, 0.7, 1.5, 0.75
PAIRS = [
    row("Say hello.", "Hello there, sailor!", "No."),
    row("And the sea?", "Wide.", "The sea is", rejected_complete=False),
]
JUDGED = {"Hello there!": True, "No.": False, "Flour and water.": True}
SHOWN = "Two and two make four."


def judged(text: str, label: bool) -> Unpaired:
    side = replace(PAIRS[0].chosen, text=text, answer_id=text)
    prompt = (Message("user", f"Q {text}"),)
    return Unpaired(text, prompt, side, label, "vote", origin(text))


def shown(text: str) -> Demonstration:
    side = replace(PAIRS[0].chosen, text=text, answer_id=text)
    return Demonstration(text, (Message("user", "Sum?"),), side, "correction", origin(text))


@pytest.fixture(scope="module")
def data(renderer: Renderer) -> TrainingData:
    lone = [judged(text, label) for text, label in JUDGED.items()]
    return TrainingData(
        pairs=tokenize(renderer, PAIRS, 512),
        demonstrations=tokenize_answers(renderer, [shown(SHOWN)], 512),
        unpaired=tokenize_answers(renderer, lone, 512),
    )


@pytest.fixture
def model(tiny_base: BaseModel) -> PeftModel:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(plain_model(tiny_base), config)


def recipe(**changed: Any) -> JointRecipe:
    values = JointRecipe(
        epochs=4,
        least_steps=0,
        batch_rows=6,
        learning_rate=0.01,
        beta=BETA,
        label_smoothing=SMOOTHING,
        pair_sft_weight=PAIR_SFT,
        demonstration_weight=DEMONSTRATION,
        good_weight=GOOD,
        bad_weight=BAD,
    )
    return replace(values, **changed)


def trained(
    model: PeftModel, data: TrainingData, folder: Path, tokenizer: Any, **changed: Any
) -> Recorder:
    recorder = Recorder()
    torch.manual_seed(0)
    method = recipe(**changed)
    rows = Dataset.from_list(method.rows(data))
    method.train(model, rows, Stage("joint", folder, 0, tokenizer, recorder))
    return recorder


def total(model: Any, prompt: list[int], completion: list[int]) -> float:
    return float(token_logprobs(model, prompt, completion).sum())


def mean(model: Any, prompt: list[int], completion: list[int]) -> float:
    return float(token_logprobs(model, prompt, completion).mean())


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def change(policy: Any, base: Any, data: TrainingData) -> float:
    """The mean change in log-probability of the borrowed answers."""
    lent = [each for each in lend_mismatched(recipe().rows(data)) if each["mismatched_ids"]]
    assert lent
    changes = [
        total(policy, each["prompt_ids"], each["mismatched_ids"])
        - total(base, each["prompt_ids"], each["mismatched_ids"])
        for each in lent
    ]
    return sum(changes) / len(changes)


def loss_by_hand(policy: Any, base: Any, data: TrainingData, drift: float) -> float:
    """Rafailov et al. eq. 7, Mitchell 2023 and Pang et al. eq. 2; Ethayarajh et al. eq. 7; SFT."""
    losses = []
    for pair in data.pairs.rows:
        prompt, chosen, rejected = (pair[f"{n}_ids"] for n in ("prompt", "chosen", "rejected"))
        gain = total(policy, prompt, chosen) - total(base, prompt, chosen)
        loss = total(policy, prompt, rejected) - total(base, prompt, rejected)
        margin = BETA * (gain - loss)
        right, swapped = -log(sigmoid(margin)), -log(sigmoid(-margin))
        preference = (1 - SMOOTHING) * right + SMOOTHING * swapped
        losses.append(preference - PAIR_SFT * mean(policy, prompt, chosen))
    for each in data.unpaired.rows:
        prompt, completion = each["prompt_ids"], each["completion_ids"]
        gain = total(policy, prompt, completion) - total(base, prompt, completion) - drift
        sign, weight = (1, GOOD) if each["label"] else (-1, BAD)
        losses.append(weight * (1 - sigmoid(BETA * gain * sign)))
    for each in data.demonstrations.rows:
        losses.append(-DEMONSTRATION * mean(policy, each["prompt_ids"], each["completion_ids"]))
    return sum(losses) / len(losses)


def test_the_first_loss_is_that_of_the_papers_where_policy_and_reference_agree(
    model: PeftModel, data: TrainingData, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    base = plain_model(tiny_base)
    found = trained(model, data, tmp_path, tokenizer)
    assert found.losses[0] == pytest.approx(loss_by_hand(base, base, data, 0.0), rel=1e-4)


def test_a_later_loss_is_that_of_the_papers(
    model: PeftModel, data: TrainingData, tiny_base: BaseModel, tmp_path: Path, tokenizer: Any
) -> None:
    found = trained(model, data, tmp_path, tokenizer)
    model.eval()
    base, changes = plain_model(tiny_base), [0.0]  # of the first step, where nothing has changed
    for weights in found.weights[:3]:  # those of the later forward passes
        model.load_state_dict(weights, strict=False)
        changes.append(change(model, base, data))
    expected = loss_by_hand(model, base, data, max(0.0, sum(changes) / 4))
    assert found.losses[3] == pytest.approx(expected, rel=1e-4)
    assert found.losses[3] < found.losses[0]


def test_packs_and_padded_rows_have_the_same_gradients_and_logs(
    tiny_base: BaseModel,
    data: TrainingData,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = Dataset.from_list(recipe().rows(data))
    watches = []
    for name, blocker in (("packed", None), ("padded", "for this test")):
        monkeypatch.setattr(joint_trainer, "packing_blocker", lambda _model, b=blocker: b)
        watch = Watch()
        stage = Stage("joint", tmp_path / name, 0, tokenizer, watch)
        recipe(epochs=1).train(tuned_model(tiny_base.folder), rows, stage)
        watches.append(watch)
    packed, padded = watches
    assert packed.gradients.keys() == padded.gradients.keys() != set()
    for name, gradient in packed.gradients.items():
        torch.testing.assert_close(gradient, padded.gradients[name], rtol=1e-3, atol=1e-6)
    for name in ("loss", "pair_loss", "judgement_loss", "demonstration_loss", "rewards/margins"):
        assert packed.logs[name] == pytest.approx(padded.logs[name], rel=1e-4, abs=1e-6)


def test_the_share_of_each_kind_is_its_part_of_the_gradient(
    tiny_base: BaseModel, data: TrainingData, tmp_path: Path, tokenizer: Any
) -> None:
    """Trained on one kind at a time, in the same sum, the norms have the ratios that are logged."""
    everything = recipe(epochs=1).rows(data)
    logs, norms = {}, {}
    for kind in ("pair", "judgement", "demonstration", None):
        watch = Watch()
        chosen = [each for each in everything if kind in (None, each["kind"])]
        folder = tmp_path / str(kind)
        recipe(epochs=1).train(
            tuned_model(tiny_base.folder),
            Dataset.from_list(chosen),
            Stage("joint", folder, 0, tokenizer, watch),
        )
        if kind is None:
            logs = watch.logs
        else:
            norms[kind] = watch.logs["grad_norm"] * len(chosen)  # a mean over fewer rows
    sum_of_norms = sum(norms.values())
    for kind, norm in norms.items():
        assert logs[f"{kind}_gradient_share"] == pytest.approx(norm / sum_of_norms, rel=1e-3)


@pytest.mark.parametrize(
    ("good", "bad", "weights"),
    [
        (10, 10, (2.0, 2.0)),
        (10, 30, (4.0, 4 / 3)),
        (1, 99, (100 / 99 * 10, 100 / 99)),  # as ten to one, and not ninety-nine
        (5, 0, (1.0, 1.0)),
    ],
)
def test_the_weights_of_judgements_follow_from_their_counts(
    good: int, bad: int, weights: tuple[float, float]
) -> None:
    found = JointRecipe().store_values(flip_rate=None, good=good, bad=bad)
    assert (found["good_weight"], found["bad_weight"]) == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [(2, 8.0), (12, 8.0), (16, 6.0), (32, 3.0), (200, 3.0), (400, 1.5), (1000, 1.0), (5000, 1.0)],
)
def test_little_data_is_read_eight_times_and_much_data_once(rows: int, epochs: float) -> None:
    # 24 steps of 4 rows are 6 epochs of 16 rows; 150 are 1.5 epochs of 400
    assert JointRecipe(epochs=3).epochs_of(rows) == epochs


def test_a_recipes_own_epochs_count_where_no_least_steps_are_asked() -> None:
    assert JointRecipe(epochs=3, least_steps=0).epochs_of(2) == 3.0
    assert JointRecipe(epochs=12).epochs_of(2) == 12.0


def test_judgements_that_are_all_bad_train_nothing_by_themselves(data: TrainingData) -> None:
    lone = replace(data.unpaired, rows=tuple(r for r in data.unpaired.rows if not r["label"]))
    assert JointRecipe().rows(TrainingData(TokenizedPairs(), unpaired=lone)) == []
    beside = JointRecipe().rows(TrainingData(data.pairs, unpaired=lone))
    assert [each["kind"] for each in beside] == ["pair", "pair", "judgement"]


def test_about_half_of_the_judgements_borrow_an_answer_to_another_prompt() -> None:
    rows = [judgement(number) for number in range(40)]
    lent = loans(rows)
    assert all(ids == [] or ids[0] != prompt for prompt, ids in lent.items())
    assert sum(ids != [] for ids in lent.values()) == pytest.approx(20, abs=8)
    assert loans(rows[::-1]) == lent  # whatever their order
    assert loans(rows[:1]) == {0: []}  # nobody to borrow from


def test_a_new_judgement_changes_one_loan_at_most() -> None:
    before = loans([judgement(number) for number in range(40)])
    after = loans([judgement(number) for number in range(41)])
    assert sum(after[prompt] != ids for prompt, ids in before.items()) <= 1


def judgement(number: int) -> dict[str, Any]:
    ids = [number]
    return {"kind": "judgement", "prompt_ids": ids, "completion_ids": ids * 2, "label": True}


def loans(rows: list[dict[str, Any]]) -> dict[int, list[int]]:
    return {each["prompt_ids"][0]: each["mismatched_ids"] for each in lend_mismatched(rows)}


def test_what_each_kind_did_is_left_beside_the_adapter(
    model: PeftModel, data: TrainingData, tmp_path: Path, tokenizer: Any
) -> None:
    trained(model, data, tmp_path, tokenizer)
    found = read_contributions(tmp_path)
    assert found is not None
    assert {kind: each["rows"] for kind, each in found.items()} == {
        "pair": 2,
        "judgement": 3,
        "demonstration": 1,
    }
    assert sum(each["gradient_share"] for each in found.values()) == pytest.approx(1, abs=1e-3)
    assert all(each["loss_after"] < each["loss_before"] for each in found.values())
    assert found["pair"]["accuracies"] == 1.0
    assert found["judgement"]["good"] > found["judgement"]["bad"]


def test_contributions_are_means_of_the_logs_where_the_kind_was_in_the_batch() -> None:
    history = [
        {"loss": 1.0, "pair_loss": 0.8, "pair_gradient_share": 1.0},
        {"loss": 0.9, "judgement_loss": 0.5, "judgement_gradient_share": 1.0, "rewards/good": 0.1},
        {"loss": 0.5, "pair_loss": 0.4, "pair_gradient_share": 0.6, "rewards/margins": 2.0},
        {"train_runtime": 3.0},
    ]
    rows = [{"kind": "pair"}, {"kind": "pair"}, {"kind": "judgement"}]
    assert contributions(history, rows) == {
        "pair": {
            "rows": 2,
            "loss_before": 0.8,
            "loss_after": 0.4,
            "gradient_share": 0.8,
            "accuracies": None,
            "margins": 2.0,
        },
        "judgement": {
            "rows": 1,
            "loss_before": None,
            "loss_after": None,
            "gradient_share": 1.0,
            "good": None,
            "bad": None,
        },
    }


@pytest.mark.parametrize("kind", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_learn_from_all_evidence(
    kind: TrainedKind, tmp_path: Path, tiny_base: BaseModel
) -> None:
    lone = [judged(text, label) for text, label in JUDGED.items()]
    snapshot = frozen(tmp_path, pairs=PAIRS, unpaired=real_ids(lone))
    whole = Recipe(
        adapter=AdapterRecipe(kind=kind, virtual_tokens=4),
        joint=recipe(epochs=3, good_weight="store", bad_weight="store"),
        sft=SftRecipe(epochs=0),
        dpo=DpoRecipe(epochs=0),
        number_format="fp32",
    )
    _, events = run_of(tmp_path, tiny_base, snapshot, whole)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert steps[0].reward_margin == pytest.approx(0, abs=1e-4)  # the reference is the start
    assert steps[-1].loss < steps[0].loss


def real_ids(lone: list[Unpaired]) -> list[Unpaired]:
    return [
        replace(each, id=example_id("unpaired", each.sides, "vote", each.origin.user_ids))
        for each in lone
    ]
