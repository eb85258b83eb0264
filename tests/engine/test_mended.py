"""Faults that once got through, on every floor of the engine: each must stay mended."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from engine.adapters.bundle import open_bundle
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, InvalidBundle, ModelUnavailable
from engine.messages import Message
from engine.models.catalogue import resolve
from engine.prompts.reasoning import Reasoned, join_reasoning, split_reasoning
from engine.prompts.render import Renderer
from engine.reference import ReferenceEngine
from engine.request import ScoreRequest
from engine.storage import digest_bytes, folder_of, publish, verify
from tests.helpers import answer, ask, make_bundle


# Render: thread safety
def test_prompts_rendered_by_several_threads_at_once_are_right(smollm_tokenizer):
    renderer = Renderer(AutoTokenizer.from_pretrained(smollm_tokenizer.name_or_path))
    messages = [Message("system", "Be nice."), Message("user", "hello there " * 20)]
    prompt, completion = renderer.prompt(messages), renderer.completion("<|im_end|> hello " * 20)

    def prompts(_):
        return sum(renderer.prompt(messages) != prompt for _ in range(300))

    def completions(_):
        return sum(renderer.completion("<|im_end|> hello " * 20) != completion for _ in range(300))

    with ThreadPoolExecutor(4) as pool:
        wrong = [pool.submit(f, 0) for f in (prompts, completions, prompts, completions)]
    assert sum(f.result() for f in wrong) == 0


# Render: special tokens not in all_special_tokens
@pytest.mark.parametrize(
    "special", ["<repo_name>", "<file_sep>", "<jupyter_code>", "<empty_output>"]
)
def test_every_special_token_of_the_vocabulary_is_plain_text_in_a_message(
    smollm_tokenizer, special
):
    ids = Renderer(smollm_tokenizer).prompt([Message("user", f"Say {special}.")])
    assert smollm_tokenizer.convert_tokens_to_ids(special) not in ids


# Render: every private-use character
def test_a_message_of_every_private_use_character_is_rendered(smollm_tokenizer):
    text = "".join(map(chr, range(0xE000, 0xF8FF + 1)))
    assert Renderer(smollm_tokenizer).prompt([Message("user", text)])


# Bundle: initialisations that rewrite the base weights
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_never_changes_the_base_model(engine, tiny_base, adapters, init):
    before = answer(engine, "Why?")
    slots = AdapterSlots(engine, tiny_base, adapters.root)
    digest = make_bundle(adapters.root, tiny_base, config={"init_lora_weights": init})
    with contextlib.suppress(InvalidBundle):
        slots.activate(digest)
    assert answer(engine, "Why?") == before
    slots.activate(None)
    assert answer(engine, "Why?") == before


# Bundle: configuration fields that are not looked at
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},  # 12 of 14 modules silently ignored
        {"target_modules": "(.+)+x$"},  # a pattern: backtracks for ever on long module names
        {"target_modules": None},
        {"exclude_modules": ["q_proj"]},
        {"layers_to_transform": [0]},
        {"alora_invocation_tokens": [5]},  # silently the base model's text
        {"task_type": "SEQ_CLS"},
        {"task_type": "NOPE"},
        {"init_lora_weights": "nonsense"},
        {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
        {"init_lora_weights": "corda"},
        {"megatron_config": {"a": 1}},
        {"arrow_config": {"top_k": 1}},
        {"use_bdlora": {"nblocks": 2}},
        {"lora_alpha": 1e6},  # the norm limit does not see the scale
        {"lora_alpha": float("nan")},
        {"lora_alpha": True},
        {"r": True},
        {"lora_dropout": "x"},
    ],
    ids=lambda c: json.dumps(c)[:50],
)
def test_a_configuration_that_changes_what_is_served_is_refused(tiny_base, tmp_path, config):
    digest = make_bundle(tmp_path, tiny_base, config=config)
    with pytest.raises(InvalidBundle, match=next(iter(config))):
        open_bundle(tmp_path, digest, tiny_base)


def test_targeted_modules_without_weights_are_refused(tiny_base, tmp_path):
    digest = make_bundle(
        tmp_path, tiny_base, doctor=lambda t: {k: v for k, v in t.items() if "q_proj" in k}
    )
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)


# Bundle: content that crashes the check instead of failing it
@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(tiny_base, tmp_path, text):
    digest = make_bundle(
        tmp_path, tiny_base, write_more=lambda f: (f / "adapter_config.json").write_text(text)
    )
    with pytest.raises(InvalidBundle, match="adapter_config"):
        open_bundle(tmp_path, digest, tiny_base)


def test_weights_in_float8_are_refused(tiny_base, tmp_path):
    digest = make_bundle(
        tmp_path,
        tiny_base,
        doctor=lambda t: {k: v.to(torch.float8_e4m3fn) for k, v in t.items()},
    )
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)


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
def test_a_forged_manifest_is_refused_not_a_crash(tiny_base, tmp_path, manifest):
    digest = forged(tmp_path, manifest)
    with pytest.raises(InvalidBundle):
        open_bundle(tmp_path, digest, tiny_base)


# Storage
def test_two_who_publish_the_same_at_once_both_get_its_id(tmp_path, monkeypatch):
    barrier, real_rename = threading.Barrier(2), Path.rename

    def rename(path, target):  # both have seen that the target does not exist
        barrier.wait(5)
        return real_rename(path, target)

    def fill(folder):
        (folder / "a").write_bytes(b"x")
        return {"format": "t"}

    monkeypatch.setattr(Path, "rename", rename)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(publish, tmp_path, fill) for _ in range(2)]
    assert len({f.result() for f in futures}) == 1


def test_verify_opens_no_file_outside_the_folder(tmp_path, monkeypatch):
    def fill(folder):
        (folder / "a").write_bytes(b"x")
        return {}

    digest = publish(tmp_path / "root", fill)
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    (folder_of(tmp_path / "root", digest) / "b").symlink_to(outside)
    opened, real_open = [], Path.open
    monkeypatch.setattr(
        Path, "open", lambda p, *a, **k: (opened.append(p.resolve()), real_open(p, *a, **k))[1]
    )
    assert verify(tmp_path / "root", digest)
    assert outside.resolve() not in opened


def test_a_linked_folder_is_a_problem(tmp_path):
    digest = publish(tmp_path / "elsewhere", lambda folder: {})
    (tmp_path / "root").mkdir()
    folder_of(tmp_path / "root", digest).symlink_to(folder_of(tmp_path / "elsewhere", digest))
    assert verify(tmp_path / "root", digest)


def test_an_extra_manifest_in_a_subfolder_is_named(tmp_path):
    digest = publish(tmp_path, lambda folder: {})
    (folder_of(tmp_path, digest) / "sub").mkdir()
    (folder_of(tmp_path, digest) / "sub" / "manifest.json").write_bytes(b"anything")
    assert verify(tmp_path, digest)


def test_a_reformatted_manifest_is_a_problem(tmp_path):
    digest = publish(tmp_path, lambda folder: {})
    file = folder_of(tmp_path, digest) / "manifest.json"
    file.write_bytes(b" " + file.read_bytes() + b"\n")
    assert verify(tmp_path, digest)


# Engine
def test_a_waiting_answer_that_is_cancelled_ends_while_the_rows_are_busy(tiny_base):
    engine = ReferenceEngine(tiny_base, dtype=torch.float32, max_rows=1)
    running = engine.submit(ask("Why?", max_new_tokens=1500, ignore_eos=True))
    next(iter(running))
    waiting = engine.submit(ask("Hi"))
    waiting.cancel()
    ended = threading.Event()
    threading.Thread(target=lambda: (list(waiting), ended.set()), daemon=True).start()
    try:
        assert ended.wait(1.0), "it waits for the running answer to end"
        assert engine.active_streams == 1
    finally:
        running.cancel()
        engine.close()


def test_scoring_an_empty_cut_completion_has_a_mean(engine):
    [score] = engine.score([ScoreRequest((Message("user", "Hi"),), "", complete=False)])
    assert score.total == 0
    assert score.per_token == 0


@pytest.mark.parametrize("start", ["reference"], indirect=True)
def test_a_load_that_fails_is_an_error_of_the_tree(engine, adapters, tiny_base):
    digest = make_bundle(adapters.root, tiny_base, config={"init_lora_weights": "nonsense"})
    with pytest.raises(BurnishError):
        engine.load_adapter(digest, adapters.folder(digest))


def test_a_load_that_fails_half_way_leaves_the_base_as_it_was(engine, adapters, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    before = answer(engine, "Why?")
    folder = Path(shutil.copytree(adapters.folder(adapters.a), tmp_path / "spoilt"))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[list(tensors)[-1]] = torch.zeros(3, 3)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidBundle):
        engine.load_adapter("sha256:" + "1" * 64, folder)
    assert answer(engine, "Why?") == before


# Reasoning
def test_an_answer_that_begins_with_emphasis_or_a_list_keeps_it():
    for text in ("**42** is it", "* a\n* b"):
        said = join_reasoning("Hm.", text)
        assert split_reasoning(said, answer_line=True) == Reasoned("Hm.", text)


# Catalogue
@pytest.mark.parametrize("name", ["../absent", "owner/..", "-a/b", "./absent", "a/b--c"])
def test_a_relative_path_that_is_absent_is_an_unknown_model(tmp_path, name):
    with pytest.raises(ModelUnavailable):
        resolve(name, tmp_path)


def test_the_empty_name_is_an_unknown_model(tmp_path):
    with pytest.raises(ModelUnavailable, match="give 'embedded'"):
        resolve("", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\xff"])
def test_a_config_that_is_no_object_is_a_reason(tmp_path, text):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    (tmp_path / "m" / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelUnavailable):
        resolve(str(tmp_path / "m"), tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["vocab.json", "merges.txt", "generation_config.json", "added_tokens.json"]
)
def test_files_that_decide_the_tokens_count_in_the_digest(tmp_path, tiny_base, name):
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / name).write_text("{}")
    one = resolve(str(copy), tmp_path / "cache").digest
    (copy / name).write_text('{"eos_token_id": 7}')
    assert resolve(str(copy), tmp_path / "cache").digest != one


def test_broken_weights_are_a_reason(tmp_path, tiny_base):
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelUnavailable):
        ReferenceEngine(resolve(str(copy), tmp_path / "cache"), dtype=torch.float32)


def test_a_missing_tokenizer_is_a_reason(tmp_path, tiny_base):
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable):
        ReferenceEngine(resolve(str(copy), tmp_path / "cache"), dtype=torch.float32)


# Messages, modes
@pytest.mark.parametrize("text", ["\u3164", "\u2800", "\u115f"])
def test_invisible_letters_are_blank(text):
    from engine.messages import is_blank

    assert is_blank(text)


def test_a_system_message_in_the_history_stays_one():
    from engine.prompts.modes import make_template

    shown = make_template("plain", ()).build((Message("system", "New rules."),), "Hi")
    assert Message("user", "New rules.") not in shown


# Detokenizer
def test_an_answer_cut_within_a_character_shows_no_replacement_character():
    from engine.prompts.detokenizer import Detokenizer

    detokenizer = Detokenizer(lambda ids: bytes(ids).decode("utf-8", "replace"))
    for byte in "a👍".encode()[:-1]:
        detokenizer.push(byte)
    detokenizer.finish()
    assert detokenizer.text == "a"
