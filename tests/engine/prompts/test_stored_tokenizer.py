"""A stored tokenizer makes the prompts and ids of transformers' own, and is stored once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import SecurityError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from engine.errors import InvalidInput
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.chat_template import ChatTemplate
from engine.prompts.load import load_serving_renderer, load_tokenizer
from engine.prompts.render import Renderer
from engine.prompts.stored_tokenizer import (
    TOKENIZERS_FOLDER,
    StoredTokenizer,
    _described,
    stored_tokenizer,
)
from engine.prompts.template_check import examine_template
from tests.engine.prompts.calls.test_templates import CONVERSATION, TEMPLATES
from tests.engine.prompts.test_load import GEMMA, OTHER
from tests.helpers import CHATML

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two  blanks and a line end\n\n",
    "don't , do n't .",
    "naïve café, 你好，世界, 🙂👩‍👩‍👧, \u200b and \ufeff",
    "<|im_end|> <|im_start|>user\n<|endoftext|></s><s>",
    "x" * 300,
    "1234567890 3.14159 def f(a, b):\n\treturn a+b",
]
SWITCH = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }} {{ dict(a=1) | tojson }} {{ bos_token }}{{ eos_token }}{{ unk_token }}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
MARKED = (
    "{%- for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n"
    "{{ m.content }}{{ eos_token }}\n{% endgeneration %}\n{% else %}{{ m.content }}{% break %}"
    "{% endif %}{% endfor %}"
)
ALL_TEMPLATES = {name: template for name, (_, template) in TEMPLATES.items()} | {
    "chatml": CHATML,
    "gemma": GEMMA,
    "other": OTHER,
    "switch": SWITCH,
    "marked": MARKED,
}
QUESTION = Message("user", "What is <|im_end|> for, 你好?")
CONVERSATIONS: list[tuple[Message, ...]] = [
    (QUESTION,),
    (Message("system", "Be kind.\n"), QUESTION, Message("assistant", "  A mark. "), QUESTION),
    (Message("user", "Once."), Message("user", "Twice.")),
    CONVERSATION,
]


def sentencepiece_like() -> Any:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "▁hello": 4, "h": 5, "e": 6, "l": 7}
    vocabulary |= {f"<0x{byte:02X}>": 8 + byte for byte in range(256)}
    return LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True)


def normalizing() -> Any:
    """A vocabulary of words, a normalizer, and truncation and padding in its file."""
    words = ["[UNK]", "[PAD]", "hello", "world", ",", "!", "do", "n't", "."]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.enable_truncation(4)
    backend.enable_padding(pad_id=1, pad_token="[PAD]", length=6)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="."
    )


@pytest.fixture(params=["embedded", "tiny", "sentencepiece", "normalizing"])
def tokenizer(request: pytest.FixtureRequest, tiny_base: BaseModel) -> Any:
    """A tokenizer of transformers."""
    made = {
        "embedded": lambda: copy.deepcopy(request.getfixturevalue("smollm_tokenizer")),
        "tiny": lambda: load_tokenizer(tiny_base.folder),
        "sentencepiece": sentencepiece_like,
        "normalizing": normalizing,
    }
    return made[request.param]()


def stored(tokenizer: Any) -> StoredTokenizer:
    described = _described(tokenizer)
    assert described is not None
    return StoredTokenizer(*described)


def test_every_text_has_the_same_ids_and_all_ids_the_same_text(tokenizer: Any) -> None:
    own = stored(tokenizer)
    for text in TEXTS:
        for split in (False, True):
            for special in (False, True):
                options = {"add_special_tokens": special, "split_special_tokens": split}
                ids = tokenizer.encode(text, **options)
                assert own.encode(text, **options) == ids, (text, options)
                for skip in (False, True):
                    decoded = tokenizer.decode(ids, skip_special_tokens=skip)
                    assert own.decode(ids, skip_special_tokens=skip) == decoded
                    for token_id in ids:
                        expected = tokenizer.decode([token_id], skip_special_tokens=skip)
                        assert own.decode([token_id], skip_special_tokens=skip) == expected
    assert own.get_vocab() == tokenizer.get_vocab()
    assert own.eos_token_id == tokenizer.eos_token_id
    assert {i: (t.content, t.special) for i, t in own.added_tokens_decoder.items()} == {
        i: (t.content, t.special) for i, t in tokenizer.added_tokens_decoder.items()
    }


@pytest.mark.parametrize("name", ALL_TEMPLATES)
def test_every_template_renders_the_same_prompts(smollm_tokenizer: Any, name: str) -> None:
    theirs = copy.deepcopy(smollm_tokenizer)
    theirs.chat_template = ALL_TEMPLATES[name]
    abilities = examine_template(ALL_TEMPLATES[name])
    renderers = [Renderer(each, abilities=abilities) for each in (theirs, stored(theirs))]
    for messages in CONVERSATIONS:
        for thinking in (None, True, False):
            one, other = (outcome(renderer, messages, thinking) for renderer in renderers)
            assert one == other


def outcome(
    renderer: Renderer, messages: tuple[Message, ...], thinking: bool | None
) -> tuple[int, ...] | str:
    """The prompt's ids, or the sentence of its refusal."""
    try:
        return renderer.prompt(messages, thinking=thinking)
    except InvalidInput as error:
        return str(error)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ dict.__class__.__mro__ }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
    ],
)
def test_a_template_that_leaves_the_sandbox_is_stopped(template: str) -> None:
    with pytest.raises(SecurityError):
        ChatTemplate(template, {}).render([{"role": "user", "content": "Hi"}])


def counted(load: Callable[[], Any], calls: list[int]) -> Callable[[], Any]:
    def loaded() -> Any:
        calls.append(1)
        return load()

    return loaded


def test_it_is_loaded_once_for_each_model_and_again_where_the_file_is_damaged(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    calls: list[int] = []
    load = counted(lambda: load_tokenizer(tiny_base.folder), calls)
    first = stored_tokenizer(tmp_path, tiny_base.digest, load)
    second = stored_tokenizer(tmp_path, tiny_base.digest, load)
    assert len(calls) == 1
    ids = [
        each.encode("Hello", add_special_tokens=False, split_special_tokens=False)
        for each in (first, second)
    ]
    assert ids[0] == ids[1] != []
    stored_tokenizer(tmp_path, "sha256:" + "0" * 64, load)
    assert len(calls) == 2
    for file in (tmp_path / TOKENIZERS_FOLDER).iterdir():
        file.write_bytes(file.read_bytes().replace(b"Hello", b"Hallo").replace(b"the", b"teh"))
    stored_tokenizer(tmp_path, tiny_base.digest, load)
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_changes_nothing(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    (tmp_path / TOKENIZERS_FOLDER).write_text("no folder")
    renderer = load_serving_renderer(tiny_base.folder, tiny_base.digest, tmp_path)
    assert renderer.prompt([QUESTION])


def test_a_tokenizer_that_does_more_is_left_to_transformers(tmp_path: Path) -> None:
    """BERT's cleans up the blanks of decoded text."""
    words = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a"])}
    bert = BertTokenizer(vocab=words, clean_up_tokenization_spaces=True)
    assert stored_tokenizer(tmp_path, "sha256:" + "1" * 64, lambda: bert) is bert
    assert not (tmp_path / TOKENIZERS_FOLDER).exists()
