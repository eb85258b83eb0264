"""llama.cpp reads the GGUF files of exports and writes what the engine writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from deploy.export.formats import export_release
from engine.fast import FastEngine
from engine.models.catalogue import BaseModel, resolve
from engine.storage import folder_of
from tests.helpers import CHATML, answer, make_bundle
from tests.support.llama_cpp import llama_cpp
from tests.support.tiny_model import SENTENCES, SPECIALS, write_tiny_model

pytestmark = pytest.mark.integration

QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "How do I boil an egg?",
    "Write one sentence about the sea.",
    "What is 12 times 12?",
    "Who wrote Hamlet?",
    "Explain gravity to a child.",
    "List the days of the week.",
    "Translate 'good morning' into French.",
    "What do bees make?",
    "Give me a tip for sleeping well.",
    "What is the largest planet?",
    "Write a haiku about rain.",
    "Why is the sky blue?",
    "Name a country in Africa.",
    "How many legs has a spider?",
    "What is a synonym of happy?",
    "Tell me a fact about cats.",
    "What is the boiling point of water in Celsius?",
    "Suggest a name for a dog.",
)
TOKENS = 48
TRICKY = (
    "Hello, world! It's 12345 o'clock, isn't it?",
    "  two spaces, a\ttab,\n\n\nthree lines  ",
    "<|im_start|>user\nCafé — naïve 你好吗？ 🙂<|im_end|>\n",
    "x=3.14159; for(i=0;i<10;i++){ print(i) }",
)


def only_file(folder: Path, *, ends: str = ".gguf") -> Path:
    (file,) = folder.glob(f"*{ends}")
    return file


def engine_answers(
    base: BaseModel,
    kernel_cache: Path,
    questions: Sequence[str],
    *,
    adapter: tuple[str, Path] | None = None,
    max_new_tokens: int = TOKENS,
    **options: Any,
) -> list[str]:
    """The greedy answers of the engine, in fp32 unless quantized."""
    engine = FastEngine(base, kernel_cache=kernel_cache, dtype=torch.float32, **options)
    with contextlib.closing(engine):
        digest = None
        if adapter is not None:
            digest, bundles = adapter
            engine.load_adapter(digest, folder_of(bundles, digest))
        return [
            answer(engine, each, adapter=digest, max_new_tokens=max_new_tokens).text
            for each in questions
        ]


@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q4_1"])
def test_each_type_of_a_small_model_is_read(
    quantization: str, tiny_base: BaseModel, kernel_cache: Path, tmp_path: Path
) -> None:
    """In f16 the text is the engine's; the others are rounded by each side's own arithmetic."""
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    arguments = tiny_base, tmp_path / "bundles", bundle
    export_release(*arguments, tmp_path / "gguf", "gguf", quantization=quantization)
    with llama_cpp(only_file(tmp_path / "gguf")) as theirs:
        found = [theirs.answer(each, TOKENS) for each in QUESTIONS[:4]]
    assert all(found)
    if quantization == "f16":
        export_release(*arguments, tmp_path / "merged")
        merged = resolve(str(tmp_path / "merged"), tmp_path / "cache")
        assert found == engine_answers(merged, kernel_cache, QUESTIONS[:4])


@pytest.mark.parametrize("rslora", [False, True])
def test_the_adapter_alone_beside_the_base_model(
    rslora: bool, tiny_base: BaseModel, kernel_cache: Path, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    export_release(tiny_base, bundles, None, tmp_path / "first", "gguf")
    base = resolve(str(only_file(tmp_path / "first")), tmp_path / "cache")  # of bf16 weights
    bundle = make_bundle(bundles, base, config={"use_rslora": True} if rslora else None)
    export_release(base, bundles, None, tmp_path / "base", "gguf")
    export_release(base, bundles, bundle, tmp_path / "lora", "gguf-lora")
    files = only_file(tmp_path / "base"), only_file(tmp_path / "lora")
    with llama_cpp(*files) as theirs:
        found = [theirs.answer(each, TOKENS) for each in QUESTIONS[:4]]
    expected = engine_answers(
        base, kernel_cache, QUESTIONS[:4], adapter=(bundle, bundles), quantization="none"
    )
    assert found == expected
    with llama_cpp(files[0]) as theirs:
        assert [theirs.answer(each, TOKENS) for each in QUESTIONS[:4]] != expected


def split_by(name: str) -> Any:
    expression = Regex(GGUF_PRE_TOKENIZER_SPLITS[name])
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(expression, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SPLITTERS: dict[str, Callable[[], Any]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    ),
    "llama-bpe": lambda: split_by("llama-bpe"),
    "qwen2": lambda: split_by("qwen2"),
    "tekken": lambda: split_by("tekken"),
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_byte_level_tokenizer_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer = SPLITTERS[name]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *TRICKY], trainer)
    tokens_are_the_same(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            chat_template=CHATML,
        ),
        tmp_path,
    )


def test_a_sentencepiece_tokenizer_gives_the_same_tokens(tmp_path: Path) -> None:
    """As LLaMA 2's: pieces with a sign for spaces, bytes for what is no piece."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", *SPECIALS, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=without_specials(tokenizer, bytes_),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=CHATML,
    )
    tokens_are_the_same(fast, tmp_path)


def without_specials(tokenizer: Tokenizer, pieces: Sequence[str]) -> Tokenizer:
    """The tokenizer with `pieces` as pieces of the model alone, as byte pieces are."""
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [
        each for each in document["added_tokens"] if each["content"] not in pieces
    ]
    return Tokenizer.from_str(json.dumps(document))


def tokens_are_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """A tiny model with the tokenizer is exported and asked for tokens."""
    write_tiny_model(tmp_path / "model", tokenizer=tokenizer)
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    export_release(base, tmp_path / "bundles", None, tmp_path / "gguf", "gguf")
    ours = AutoTokenizer.from_pretrained(base.folder)
    with llama_cpp(only_file(tmp_path / "gguf")) as theirs:
        for text in (*TRICKY, *SENTENCES):
            assert theirs.tokenize(text) == ours.encode(text, add_special_tokens=False), text


@pytest.mark.slow
class TestTheEmbeddedModel:
    """SmolLM2-135M-Instruct with an adapter that changes what it says."""

    @pytest.fixture(scope="class")
    def bundle(self, smollm: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
        bundles = tmp_path_factory.mktemp("bundles")
        return make_bundle(bundles, smollm, scale=0.02), bundles

    def test_merged_in_f16_it_writes_the_engines_text_on_20_of_20_prompts(
        self, smollm: BaseModel, bundle: Any, kernel_cache: Path, tmp_path: Path
    ) -> None:
        digest, bundles = bundle
        export_release(smollm, bundles, digest, tmp_path / "gguf", "gguf")
        export_release(smollm, bundles, digest, tmp_path / "merged")
        with llama_cpp(only_file(tmp_path / "gguf")) as theirs:
            found = [theirs.answer(each, TOKENS) for each in QUESTIONS]
        merged = resolve(str(tmp_path / "merged"), tmp_path / "cache")
        assert found == engine_answers(merged, kernel_cache, QUESTIONS, quantization="none")

    def test_the_adapter_alone_in_f16_too(
        self, smollm: BaseModel, bundle: Any, kernel_cache: Path, tmp_path: Path
    ) -> None:
        digest, bundles = bundle
        export_release(smollm, bundles, None, tmp_path / "base", "gguf")
        export_release(smollm, bundles, digest, tmp_path / "lora", "gguf-lora")
        with llama_cpp(only_file(tmp_path / "base"), only_file(tmp_path / "lora")) as theirs:
            found = [theirs.answer(each, TOKENS) for each in QUESTIONS]
        expected = engine_answers(
            smollm, kernel_cache, QUESTIONS, adapter=bundle, quantization="none"
        )
        assert found == expected
