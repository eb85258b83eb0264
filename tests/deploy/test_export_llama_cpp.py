"""llama.cpp reads the GGUF files of exports and writes what the engine writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
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
    rslora: bool, tiny_base: BaseModel, tmp_path: Path
) -> None:
    """The first token's log-probabilities are peft's, but for the rounding of f16."""
    bundles = tmp_path / "bundles"
    bundle = make_bundle(bundles, tiny_base, config={"use_rslora": True} if rslora else None)
    export_release(tiny_base, bundles, None, tmp_path / "base", "gguf")
    export_release(tiny_base, bundles, bundle, tmp_path / "lora", "gguf-lora")
    files = only_file(tmp_path / "base"), only_file(tmp_path / "lora")
    expected = [first_tokens(tiny_base, folder_of(bundles, bundle), q) for q in QUESTIONS[:4]]
    for lora, close in ((files[1], True), (None, False)):
        with llama_cpp(files[0], lora) as theirs:
            found = [theirs.first_tokens(question) for question in QUESTIONS[:4]]
        distances = [
            max(abs(value - float(ours[token])) for token, value in each.items())
            for each, ours in zip(found, expected, strict=True)
        ]
        assert (max(distances) < 0.05) is close, distances


@torch.no_grad()
def first_tokens(base: BaseModel, adapter: Path, question: str) -> torch.Tensor:
    """The log-probabilities of every first token of an answer (vocabulary,), by peft."""
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    logits = PeftModel.from_pretrained(model, str(adapter))(ids).logits[0, -1]
    return torch.log_softmax(logits, dim=0)


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
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
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
