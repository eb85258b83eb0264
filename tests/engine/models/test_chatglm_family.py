"""ChatGLM-6B, ChatGLM2, ChatGLM3 and GLM-4 in their published layout.

Against numbers that the published code computed for tiny random models (`BURNISH_ORACLES`), and,
for other sizes, against transformers' GLM and a definition of ChatGLM-6B written out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import InvalidInput, ModelUnavailable
from engine.models.families import architecture_of
from engine.models.kernel_selection import KernelChoice
from tests.support.chatglm_oracles import FIRST, OTHERS, Oracle
from tests.support.chatglm_weights import (
    BOS,
    CHATGLM1_SIZES,
    CHATGLM2_SIZES,
    GMASK,
    PROMPTS,
    chatglm1_logits,
    write_chatglm1_weights,
    write_chatglm2_weights,
)
from tests.support.decoders import Runner, random_ids

CASES = [
    *((FIRST, case) for case in ("short", "mask", "answer", "both", "gmask_mid", "chat2", "far")),
    *(
        (family, case)
        for family in OTHERS
        for case in ("short", "answer", "noprefix", "chat2", "far")
    ),
]


def positions(runner: Runner, prompt: list[int]) -> tuple[Tensor, Tensor]:
    """Of the prompt and of 12 tokens after it, shaped as the oracles have them."""
    find, end = runner.architecture.positions, len(prompt)
    return find(prompt, 0, end).T.squeeze(0), find(prompt, end, end + 12).squeeze(1)


@pytest.mark.parametrize(("family", "case"), CASES)
def test_the_published_codes_logits_and_answers_are_ours(
    family: str, case: str, choice: KernelChoice
) -> None:
    oracle = Oracle(family)
    runner = Runner.of(oracle.folder, choice)
    ids, greedy = oracle[f"{case}.input_ids"].tolist(), oracle[f"{case}.greedy_ids"].tolist()
    before, after = positions(runner, ids)
    assert torch.equal(before, oracle[f"{case}.position_ids"])
    assert torch.equal(after, oracle[f"{case}.decode_position_ids"])
    text = runner.begin(ids)
    logits = runner.step((text, ids))[0]
    if f"{case}.logits" in oracle:
        oracle.assert_close(logits, oracle[f"{case}.logits"])
    else:
        oracle.assert_close(logits[-1], oracle[f"{case}.logits_last"])
    answer = [int(logits[-1].argmax())]
    for expected in oracle[f"{case}.decode_logits"]:
        logits = runner.step((text, answer[-1:]))[0]
        oracle.assert_close(logits[0], expected)
        answer.append(int(logits[0].argmax()))
    assert answer == greedy


@pytest.mark.parametrize("family", [FIRST, *OTHERS])
def test_prompts_that_the_published_code_pads_are_run_without_padding(
    family: str, choice: KernelChoice
) -> None:
    oracle = Oracle(family)
    runner = Runner.of(oracle.folder, choice)
    rows = [row.tolist() for row in oracle["batch.input_ids"]]
    pads = [0, 4]
    config = json.loads((oracle.folder / "config.json").read_text())
    assert rows[1][:4] == [config["pad_token_id"]] * 4
    prompts = [row[pad:] for row, pad in zip(rows, pads, strict=True)]
    texts = [runner.begin(prompt) for prompt in prompts]
    found = runner.step(*zip(texts, prompts, strict=True))
    for row, (prompt, pad, logits) in enumerate(zip(prompts, pads, found, strict=True)):
        oracle.assert_close(logits, oracle["batch.logits"][row, pad:])
        before, after = positions(runner, prompt)
        assert torch.equal(before, oracle["batch.position_ids"][row][..., pad:])
        assert torch.equal(after, oracle["batch.decode_position_ids"][row])
    greedy = oracle["batch.greedy_ids"]
    assert [int(logits[-1].argmax()) for logits in found] == greedy[:, 0].tolist()
    for n in range(12):
        found = runner.step(*((t, [int(greedy[row, n])]) for row, t in enumerate(texts)))
        for row, logits in enumerate(found):
            oracle.assert_close(logits[0], oracle["batch.decode_logits"][row, n])
            assert int(logits[0].argmax()) == greedy[row, n + 1]


def test_rotary_angles_are_the_published_codes() -> None:
    oracle = Oracle(FIRST)
    frequencies = architecture_of(oracle.folder).config.rotary_frequencies
    assert torch.equal(torch.tensor(frequencies[:4]), oracle["rope.inv_freq_used"])


def test_the_definition_written_out_is_that_of_the_published_code() -> None:
    oracle = Oracle(FIRST)
    config = json.loads((oracle.folder / "config.json").read_text())
    tensors = load_file(oracle.folder / "model.safetensors")
    found = chatglm1_logits(config, tensors, oracle["short.input_ids"].tolist())
    torch.testing.assert_close(found, oracle["short.logits_f64"], rtol=0, atol=1e-10)


# Other sizes

ANSWER = random_ids(6, seed=6, vocabulary=100)


@pytest.mark.parametrize("size", CHATGLM2_SIZES)
def test_a_chatglm2_of_any_size_is_transformers_glm(
    size: str, choice: KernelChoice, tmp_path: Path
) -> None:
    peer = write_chatglm2_weights(tmp_path, **CHATGLM2_SIZES[size])
    ids = random_ids(50, seed=1)
    with torch.inference_mode():
        expected = peer(torch.tensor([ids])).logits[0]
    runner = Runner.of(tmp_path, choice)
    text = runner.begin(ids)
    parts = [runner.step((text, ids[a:b]))[0] for a, b in ((0, 33), (33, 48), (48, 49), (49, 50))]
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(runner.logits(ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("size", CHATGLM1_SIZES)
def test_a_chatglm_6b_of_any_size_computes_its_definition(
    size: str, prompt: str, choice: KernelChoice, tmp_path: Path
) -> None:
    config, tensors = write_chatglm1_weights(tmp_path, **CHATGLM1_SIZES[size])
    ids = PROMPTS[prompt]
    expected = chatglm1_logits(config, tensors, [*ids, *ANSWER]).float()
    runner = Runner.of(tmp_path, choice)
    text = runner.begin(ids)
    parts = [runner.step((text, ids))[0]]
    parts += [runner.step((text, [token]))[0] for token in ANSWER]
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=2e-4)


def test_chatglm_6b_prompts_of_a_batch_do_not_see_each_other(
    choice: KernelChoice, tmp_path: Path
) -> None:
    config, tensors = write_chatglm1_weights(tmp_path, **CHATGLM1_SIZES["three heads"])
    runner = Runner.of(tmp_path, choice)
    chunks = [(runner.begin(ids), ids) for ids in PROMPTS.values()]
    for found, ids in zip(runner.step(*chunks), PROMPTS.values(), strict=True):
        expected = chatglm1_logits(config, tensors, ids).float()
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


# What is not covered is refused by name


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [
        (2, "apply_residual_connection_post_layernorm", True),
        (2, "rmsnorm", False),
        (2, "post_layer_norm", False),
        (2, "add_bias_linear", True),
        (2, "original_rope", False),
        (2, "pre_seq_len", 128),
        (2, "quantization_bit", 4),
        (1, "position_encoding_2d", False),
        (1, "pre_seq_len", 128),
        (1, "quantization_bit", 8),
    ],
)
def test_a_setting_that_is_not_covered_is_refused_by_name(
    family: int, setting: str, value: Any, tmp_path: Path
) -> None:
    _write(family, tmp_path)
    _change(tmp_path, **{setting: value})
    with pytest.raises(ModelUnavailable, match=f"{setting} = {value!r}"):
        architecture_of(tmp_path)


@pytest.mark.parametrize("family", [1, 2])
def test_settings_that_say_nothing_are_passed_over(family: int, tmp_path: Path) -> None:
    _write(family, tmp_path)
    _change(tmp_path, pre_seq_len=None, quantization_bit=0, position_encoding_2d=True)
    assert architecture_of(tmp_path).config.layer_count == 2


@pytest.mark.parametrize(
    ("family", "setting"),
    [(1, "num_layers"), (1, "gmask_token_id"), (2, "kv_channels"), (2, "padded_vocab_size")],
)
def test_a_setting_that_is_missing_is_named(family: int, setting: str, tmp_path: Path) -> None:
    _write(family, tmp_path)
    _change(tmp_path, **{setting: ...})
    with pytest.raises(ModelUnavailable, match=f"lacks '{setting}'"):
        architecture_of(tmp_path)


@pytest.mark.parametrize("missing", [BOS, GMASK])
def test_a_chatglm_6b_prompt_without_its_marks_is_refused(missing: int, tmp_path: Path) -> None:
    _write(1, tmp_path)
    find = architecture_of(tmp_path).positions
    ids = [token for token in PROMPTS["a question"] if token != missing]
    with pytest.raises(InvalidInput, match="prompt must hold"):
        find(ids, 0, len(ids))


def _write(family: int, folder: Path) -> None:
    if family == 1:
        write_chatglm1_weights(folder, **CHATGLM1_SIZES["three heads"])
    else:
        write_chatglm2_weights(folder)


def _change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | settings
    kept = {name: value for name, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
