"""Architectures that the reference engine runs: each starts, answers, scores and swaps adapters.

Scores are compared with transformers' own logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
)

from engine.errors import BurnishError, ModelUnavailable
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer
from engine.reference import ReferenceEngine
from engine.request import ScoreRequest, collect
from engine.start import engine_kind, start_engine
from engine.storage import folder_of
from tests.helpers import answer, ask, make_bundle
from tests.support.decoders import write_random
from tests.support.engines import Adapters, AnyEngine
from tests.support.tiny_model import write_tiny_model
from tuning.jobs.events import StepDone

SMALL: dict[str, Any] = {
    "vocab_size": 340,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS = {
    "bloom": BloomConfig(**SMALL),
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=64, max_position_embeddings=256),
    "gpt2": GPT2Config(**SMALL, n_positions=256),
    "opt": OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=256),
    "falcon": FalconConfig(**SMALL),
    "falcon, alibi": FalconConfig(**SMALL, alibi=True),
    "phi": PhiConfig(**SMALL, intermediate_size=64, max_position_embeddings=256),
    "gemma": GemmaConfig(
        **SMALL,
        intermediate_size=64,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
    ),
    "mixtral": MixtralConfig(
        **SMALL,
        intermediate_size=48,
        num_key_value_heads=2,
        num_local_experts=3,
        max_position_embeddings=256,
    ),
}
CONTEXT = {"bloom": 2048, "falcon": 2048, "falcon, alibi": 2048}  # of the others 256
QUESTION = (Message("user", "Why?"),)


class Running(NamedTuple):
    name: str
    base: BaseModel
    engine: ReferenceEngine


def write_architecture(folder: Path, name: str) -> None:
    """A random model of the architecture with the tiny model's tokenizer."""
    write_tiny_model(folder, context_tokens=256)
    write_random(folder, CONFIGS[name])


@pytest.fixture(scope="module", params=CONFIGS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("architecture")
    write_architecture(root / "model", request.param)
    base = resolve(str(root / "model"), root / "cache")
    assert engine_kind(base, "auto") == "reference"
    engine = ReferenceEngine(base, dtype=torch.float32, max_rows=2, max_queue=4)
    yield Running(request.param, base, engine)
    engine.close()


def test_it_answers(running: Running) -> None:
    done = answer(running.engine, "Why?", max_new_tokens=5, ignore_eos=True)
    assert done.completion_tokens == 5
    assert running.engine.context_tokens == CONTEXT.get(running.name, 256)


def test_its_scores_are_transformers(running: Running) -> None:
    rendered = load_renderer(running.base.folder).pair(QUESTION, "To see the sea.")
    model = AutoModelForCausalLM.from_pretrained(running.base.folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([rendered.input_ids])).logits[0]
    logprobs = logits.log_softmax(-1)
    first = len(rendered.prompt_ids) - 1
    expected = [
        float(logprobs[first + n, token]) for n, token in enumerate(rendered.completion_ids)
    ]
    [score] = running.engine.score([ScoreRequest(QUESTION, "To see the sea.")])
    assert score.token_logprobs == pytest.approx(expected, abs=1e-4)


def test_an_adapter_is_swapped_in_and_out(running: Running, tmp_path: Path) -> None:
    engine = running.engine
    digest = make_bundle(tmp_path, running.base, seed=1, scale=1.0)
    [plain] = engine.score([ScoreRequest(QUESTION, "Yes.")])
    engine.load_adapter(digest, folder_of(tmp_path, digest))
    [adapted] = engine.score([ScoreRequest(QUESTION, "Yes.", adapter=digest)])
    [beside] = engine.score([ScoreRequest(QUESTION, "Yes.")])
    streams = engine.submit_many(
        [ask("Why?", adapter=name, max_new_tokens=6, ignore_eos=True) for name in (digest, None)]
    )
    together = [collect(stream).text for stream in streams]  # both in one batch
    alone = [
        answer(engine, "Why?", adapter=name, max_new_tokens=6, ignore_eos=True).text
        for name in (digest, None)
    ]
    assert together == alone
    engine.unload_adapter(digest)
    [after] = engine.score([ScoreRequest(QUESTION, "Yes.")])
    assert adapted.token_logprobs != plain.token_logprobs
    assert beside.token_logprobs == pytest.approx(plain.token_logprobs, abs=1e-3)
    assert after.token_logprobs == plain.token_logprobs


@pytest.mark.slow
def test_it_is_tuned_and_the_bundle_is_served(running: Running, tmp_path: Path) -> None:
    from tests.support.pairs import snapshot_of
    from tests.support.runs import QUICK, trained

    bundle, events = trained(tmp_path, running.base, snapshot_of(tmp_path, 4), QUICK)
    assert [event for event in events if isinstance(event, StepDone)]
    running.engine.load_adapter(bundle, folder_of(tmp_path / "bundles", bundle))
    done = answer(running.engine, "Why?", adapter=bundle, max_new_tokens=3, ignore_eos=True)
    assert done.completion_tokens == 3
    running.engine.unload_adapter(bundle)


def test_it_is_started_unless_the_fast_engine_is_asked_for(
    tmp_path: Path, model_cache: Path
) -> None:
    write_architecture(tmp_path / "model", "bloom")
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    started: dict[str, Any] = {"quantization": "none", "max_rows": 2, "max_queue": 4}
    engine = start_engine(base, model_cache=model_cache, **started)
    assert isinstance(engine, ReferenceEngine)
    engine.close()
    with pytest.raises(ModelUnavailable, match="no decoder for model type"):
        start_engine(base, kind="local", model_cache=model_cache, **started)


@pytest.mark.parametrize("kind", ["reference"])
def test_a_load_that_fails_is_an_error_of_the_tree(
    engine: AnyEngine, adapters: Adapters, tiny_base: BaseModel
) -> None:
    digest = make_bundle(adapters.root, tiny_base, config={"init_lora_weights": "nonsense"})
    with pytest.raises(BurnishError):
        engine.load_adapter(digest, adapters.folder(digest))


def test_broken_weights_are_a_reason(tmp_path: Path, tiny_base: BaseModel) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelUnavailable):
        ReferenceEngine(resolve(str(copy), tmp_path / "cache"), dtype=torch.float32)


def test_a_missing_tokenizer_is_a_reason(tmp_path: Path, tiny_base: BaseModel) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "copy"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable):
        ReferenceEngine(resolve(str(copy), tmp_path / "cache"), dtype=torch.float32)
