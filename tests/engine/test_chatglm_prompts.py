"""The ChatGLM family's prompts have the published ids, and text from people stays text.

The published results are read from BURNISH_ORACLES (default `../shared/oracles` beside the
repository): one folder per family, whose tokenizer_oracle.json says what the published code makes
of texts, ids and conversations. Where a folder is absent its tests are skipped by name, and the
tiny vocabularies of `tests/helpers_chatglm.py` keep every family covered.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import ModelUnavailable
from engine.messages import Message
from engine.prompts.chatglm import is_chatglm, load_chatglm_renderer
from engine.prompts.detokenizer import Detokenizer
from tests.helpers_chatglm import (
    ALPHABET,
    GLM4_FIRST_SPECIAL,
    change_json,
    write_chatglm1,
    write_chatglm2,
    write_chatglm3,
    write_glm4,
)

BESIDE = Path(__file__).parents[3] / "shared" / "oracles"
ORACLES = Path(os.environ.get("BURNISH_ORACLES") or BESIDE)
FOLDERS = ("chatglm1", "chatglm2", "chatglm3", "glm4_9b_chat_layout")
WRITERS: dict[str, Callable[[Path], Path]] = {
    "chatglm1": write_chatglm1,
    "chatglm2": write_chatglm2,
    "chatglm3": write_chatglm3,
    "glm4": write_glm4,
}
LOOKALIKES = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "sop",
    "eop",
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|endoftext|>",
    "<0x41>",
)


# What the published code computed


@functools.cache
def published(name: str) -> tuple[Any, Any]:
    """(the renderer of an oracle's folder, what the published code makes of texts and ids)."""
    folder = ORACLES / name
    if not (folder / "tokenizer_oracle.json").is_file():
        pytest.skip(f"needs the oracle folder {name} in {ORACLES.name} (BURNISH_ORACLES)")
    assert is_chatglm(folder)
    oracle = json.loads((folder / "tokenizer_oracle.json").read_text("utf-8"))
    return load_chatglm_renderer(folder), oracle


def in_rounds(case: Any) -> list[Message]:
    said = [m for q, a in case["history"] for m in (Message("user", q), Message("assistant", a))]
    return [*said, Message("user", case["query"])]


@pytest.mark.parametrize("name", FOLDERS)
def test_texts_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    tokenizer = renderer.tokenizer
    for case in oracle["encode"]:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
        plain = tokenizer.encode(case["text"], add_special_tokens=False)
        assert plain == case["ids_no_special"], case["text"]
        assert tokenizer.encode_text(case["text"]) == case["inner_encode"], case["text"]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_have_the_published_text(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["encode"] + oracle.get("encode_special_tokens_true", []):
        decode = renderer.tokenizer.decode
        assert decode(case["ids"]) == case["decoded"]
        assert decode(case["ids_no_special"]) == case["decoded_no_special_ids"]
    for case in oracle["decode"]:
        assert renderer.tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_have_the_published_text_without_special_tokens(name: str) -> None:
    renderer, oracle = published(name)
    decode = renderer.tokenizer.decode
    if name in ("chatglm1", "glm4_9b_chat_layout"):
        decode = functools.partial(decode, skip_special_tokens=True)
    for case in oracle["encode"] + oracle["decode"] + oracle.get("encode_special_tokens_true", []):
        assert decode(case["ids"]) == case["decoded_skip_special_tokens"]


@pytest.mark.parametrize("name", FOLDERS)
def test_special_tokens_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    tokenizer, special = renderer.tokenizer, oracle["special_ids"]
    assert tokenizer.vocab_size == oracle["len"]
    if name == "chatglm1":
        attrs = oracle["attrs"]
        for kind in ("bos", "eos", "pad", "gmask"):
            assert getattr(tokenizer, f"{kind}_id") == attrs[kind]
        assert renderer.end_ids == {attrs["eos"]}
    else:
        assert tokenizer.prefix == oracle["prefix_tokens"]
        known = {**tokenizer.special_ids, "<bos>": 1, "<eos>": 2, "<pad>": 0}
        assert {name: known[name] for name in special} == special
        assert oracle["attrs"]["eos"] in renderer.end_ids


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_conversations_in_rounds_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["chat"]:
        assert list(renderer.prompt(in_rounds(case))) == case["ids"]
        assert renderer.tokenizer.encode(case["prompt"]) == case["ids"]


def test_chatglm3_conversations_have_the_published_ids() -> None:
    renderer, oracle = published("chatglm3")
    for case in oracle["chat"]:
        said = [*case["history"], {"role": case["role"], "content": case["query"]}]
        if not any("tools" in m or m.get("metadata") for m in said):
            messages = [Message(m["role"], m["content"]) for m in said]
            assert list(renderer.prompt(messages)) == case["ids"]
        ids = [*renderer.tokenizer.prefix]
        for m in said:
            content = m["content"]
            if "tools" in m:
                content += "\n" + json.dumps(m["tools"], indent=4, ensure_ascii=False)
            ids += renderer.tokenizer.message(m["role"], content, m.get("metadata", ""))
        assert [*ids, renderer.tokenizer.special_ids["<|assistant|>"]] == case["ids"]
        assert renderer.tokenizer.decode(case["ids"]) == case["decoded"]
    assert renderer.end_ids == set(oracle["eos_ids_in_chat"])


def test_glm4_conversations_have_the_published_ids() -> None:
    renderer, oracle = published("glm4_9b_chat_layout")
    tokenizer = renderer.tokenizer
    for case in oracle["chat"]:
        if all(m["role"] != "observation" for m in case["messages"]):
            messages = [Message(m["role"], m["content"]) for m in case["messages"]]
            assert list(renderer.prompt(messages)) == case["ids"]
        said = [tokenizer.message(m["role"], m["content"], m["metadata"]) for m in case["messages"]]
        opened = [*tokenizer.prefix, *(i for ids in said for i in ids)]
        assert [*opened, tokenizer.special_ids["<|assistant|>"]] == case["ids"]
        whole = tokenizer.encode(case["text"], add_special_tokens=False)
        assert whole == case["ids"]
        text = case["text_without_generation_prompt"]
        assert tokenizer.encode(text, add_special_tokens=False) == opened


@pytest.mark.parametrize("name", ["chatglm3", "glm4_9b_chat_layout"])
def test_single_messages_have_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["single_messages"]:
        ids = renderer.tokenizer.message(case["role"], case["message"], case["metadata"])
        assert ids == case["ids"]


def test_role_tokens_in_text_have_the_published_ids_where_they_are_asked_for() -> None:
    renderer, oracle = published("chatglm3")
    for case in oracle["encode_special_tokens_true"]:
        ids = renderer.tokenizer.encode_roles(case["text"])
        assert ids == case["ids_no_special"]
        assert renderer.tokenizer.prefix + ids == case["ids"]


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_a_pair_of_texts_has_the_published_ids(name: str) -> None:
    renderer, oracle = published(name)
    case = oracle["encode_pair"]
    ids = [*renderer.tokenizer.encode(case["a"]), *renderer.completion(case["b"])]
    assert ids == case["ids"]


def test_chatglm1_pads_as_published() -> None:
    renderer, oracle = published("chatglm1")
    batch = oracle["padded_batch"]
    rows = [renderer.tokenizer.encode(text) for text in batch["texts"]]
    longest = max(map(len, rows))
    padded = [[renderer.tokenizer.pad_id] * (longest - len(row)) + row for row in rows]
    assert padded == batch["input_ids"]


def test_chatglm1_leaves_room_for_images_as_published(tmp_path: Path) -> None:
    _, oracle = published("chatglm1")
    for name in ("config.json", "tokenizer_config.json", "ice_text.model"):
        (tmp_path / name).write_bytes((ORACLES / "chatglm1" / name).read_bytes())
    change_json(tmp_path / "config.json", vocab_size=620, eos_token_id=265)
    change_json(tmp_path / "tokenizer_config.json", num_image_tokens=20)
    renderer: Any = load_chatglm_renderer(tmp_path)
    tokenizer = renderer.tokenizer
    for case in oracle["with_num_image_tokens_20"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        if "text" not in case:
            assert renderer.decode(case["ids"]) == " 你好"  # the images are left out
            continue
        assert tokenizer.encode(case["text"]) == case["ids"]
        plain = tokenizer.encode(case["text"], add_special_tokens=False)
        assert plain == case["ids_no_special"]
        assert tokenizer.decode(plain) == case["decoded_no_special_ids"]
        shown = tokenizer.decode(case["ids"], skip_special_tokens=True)
        assert shown == case["decoded_skip_special_tokens"]


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2", "chatglm3"])
def test_answers_are_cleaned_up_as_published(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["process_response"]:
        out = case.get("out", case.get("content"))
        if isinstance(out, str):  # else a call of a tool, and no tools are offered here
            assert renderer.clean_answer(case["inp"]) == out


@pytest.mark.parametrize("name", FOLDERS)
def test_the_oracles_texts_stream_as_they_decode(name: str) -> None:
    renderer, oracle = published(name)
    for case in oracle["encode"]:
        ids = renderer.completion("x" + case["text"], complete=False)
        assert "".join(shown(renderer.detokenizer(), ids)) == renderer.decode(ids).lstrip("\n ")


# The tiny vocabularies, whose ids can be told by hand


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The renderer of a tiny checkpoint, by the name of its family."""
    root = tmp_path_factory.mktemp("chatglm")

    @functools.cache
    def load(name: str) -> Any:
        return load_chatglm_renderer(WRITERS[name](root / name))

    return load


PIECES = "\u2581" + "".join(sorted(ALPHABET))


def spelled(text: str, *, first_piece: int, first_byte: int) -> list[int]:
    """Ids of text, a space written ▁: one per piece of the alphabet, one per byte of the rest."""
    ids = []
    for character in text:
        if character in PIECES:
            ids.append(first_piece + PIECES.index(character))
        else:
            ids += [first_byte + byte for byte in character.encode()]
    return ids


# <unk> <s> </s> <pad>, 6 control pieces, <n>, 80 marks of white space, 256 bytes, pieces
spelled1 = functools.partial(spelled, first_byte=91, first_piece=347)
GMASK1, SOP1, EOP1, NEWLINE1, TAB1, TWO_BLANKS1 = 5, 8, 9, 10, 11, 12
# <unk> <s> </s>, 256 bytes, pieces, special tokens
spelled2 = functools.partial(spelled, first_byte=3, first_piece=259)
N2 = 259 + len(PIECES)
MASK2, GMASK2, SMASK2, SOP2, EOP2, SYSTEM3, USER3, ASSISTANT3, OBSERVATION3 = range(N2, N2 + 9)
G = GLM4_FIRST_SPECIAL
END4, MASK4, GMASK4, SMASK4, SOP4, EOP4, SYSTEM4, USER4, ASSISTANT4, OBSERVATION4 = range(G, G + 10)

ONE = [Message("user", "hello")]
TWO = [Message("user", "hi"), Message("assistant", "yes."), Message("user", "a b")]
SYSTEM = Message("system", "be kind")


def test_chatglm1_writes_rounds_only_after_the_first(tiny: Callable[[str], Any]) -> None:
    renderer = tiny("chatglm1")
    assert list(renderer.prompt(ONE)) == [*spelled1("▁hello"), GMASK1, SOP1]
    assert list(renderer.prompt(TWO)) == [
        *spelled1("▁[Round▁0]"),
        NEWLINE1,
        *spelled1("问:hi"),
        NEWLINE1,
        *spelled1("答:yes."),
        NEWLINE1,
        *spelled1("[Round▁1]"),
        NEWLINE1,
        *spelled1("问:a▁b"),
        NEWLINE1,
        *spelled1("答:"),
        GMASK1,
        SOP1,
    ]
    assert list(renderer.completion("yes.")) == [*spelled1("▁yes."), EOP1]
    assert renderer.end_ids == {EOP1}


def test_chatglm1_marks_white_space(tiny: Callable[[str], Any]) -> None:
    tokenizer = tiny("chatglm1").tokenizer
    ids = [*spelled1("▁a"), TAB1, *spelled1("b"), TWO_BLANKS1, *spelled1("c"), NEWLINE1]
    assert tokenizer.encode_text("a\tb  c\n") == ids
    assert tokenizer.decode_window(ids) == tokenizer.decode(ids) == "a\tb  c\n"
    eighty, five = TWO_BLANKS1 + 78, TWO_BLANKS1 + 3
    assert tokenizer.encode_text("a" + " " * 85)[2:] == [eighty, five]


def test_chatglm1_ids_follow_those_left_to_images(tmp_path: Path) -> None:
    renderer = load_chatglm_renderer(write_chatglm1(tmp_path, num_image_tokens=20))
    shifted = [i + 20 for i in [*spelled1("▁hello"), GMASK1, SOP1]]
    assert list(renderer.prompt(ONE)) == shifted
    assert renderer.end_ids == {EOP1 + 20}
    assert renderer.decode([7, *shifted]) == " hello"


def test_chatglm2_writes_rounds_from_one(tiny: Callable[[str], Any]) -> None:
    renderer = tiny("chatglm2")
    asked = spelled2("▁[Round▁1]\n\n问：hello\n\n答：")
    assert list(renderer.prompt(ONE)) == [GMASK2, SOP2, *asked]
    text = "▁[Round▁1]\n\n问：hi\n\n答：yes.\n\n[Round▁2]\n\n问：a▁b\n\n答："
    assert list(renderer.prompt(TWO)) == [GMASK2, SOP2, *spelled2(text)]
    assert list(renderer.completion("yes.")) == [*spelled2("▁yes."), 2]
    assert renderer.end_ids == {2}


def test_chatglm3_opens_messages_with_role_tokens(tiny: Callable[[str], Any]) -> None:
    renderer = tiny("chatglm3")
    line = spelled2("▁\n")
    assert list(renderer.prompt([SYSTEM, *TWO])) == [
        GMASK2,
        SOP2,
        SYSTEM3,
        *line,
        *spelled2("▁be▁kind"),
        USER3,
        *line,
        *spelled2("▁hi"),
        ASSISTANT3,
        *line,
        *spelled2("▁yes."),
        USER3,
        *line,
        *spelled2("▁a▁b"),
        ASSISTANT3,
    ]
    assert list(renderer.completion("yes.")) == [*line, *spelled2("▁yes."), 2]
    assert renderer.end_ids == {2, USER3, OBSERVATION3}


def test_glm4_opens_messages_with_role_tokens(tiny: Callable[[str], Any]) -> None:
    renderer = tiny("glm4")
    hell = 258  # merged from he (256) and ll (257)
    assert list(renderer.prompt([SYSTEM, *ONE])) == [
        GMASK4,
        SOP4,
        SYSTEM4,
        *b"\nbe kind",
        USER4,
        *b"\n",
        hell,
        *b"o",
        ASSISTANT4,
    ]
    assert renderer.prompt([Message("system", ""), *ONE]) == renderer.prompt(ONE)
    assert list(renderer.completion("yes.")) == [*b"\nyes.", USER4]
    assert renderer.end_ids == {END4, USER4, OBSERVATION4}
    assert renderer.tokenizer.encode_text("你好") == [261, 262, 0xBD]


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_a_system_text_stands_in_front_of_the_first_question(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    question, *rest = TWO
    joined = Message("user", f"be kind\n{question.content}")
    assert renderer.prompt([SYSTEM, *TWO]) == renderer.prompt([joined, *rest])
    assert renderer.prompt([Message("system", ""), *TWO]) == renderer.prompt(TWO)


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_a_prompt_with_its_answer_begins_the_next_prompt(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    pair = renderer.pair(TWO[:1], "yes.")
    assert pair.prompt_ids == renderer.prompt(TWO[:1])
    assert pair.completion_ids == renderer.completion("yes.")
    length = len(pair.input_ids) - (name == "chatglm3")  # it ends with </s>, not with <|user|>
    assert list(renderer.prompt(TWO))[:length] == pair.input_ids[:length]


@pytest.mark.parametrize("name", WRITERS)
def test_an_answer_that_was_cut_off_gets_no_end_token(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    ended = renderer.completion("yes.")
    assert renderer.completion("yes.", complete=False) == ended[:-1]
    assert ended[-1] in renderer.end_ids
    assert renderer.end_ids.isdisjoint(ended[:-1])


# Text from people stays text


def specials(renderer: Any) -> set[int]:
    """Every id which only the chat format itself may make."""
    own = getattr(renderer.tokenizer, "special_ids", None)
    return {0, 1, 2, *own.values()} if own else set(range(10))


@pytest.mark.parametrize("lookalike", LOOKALIKES)
@pytest.mark.parametrize("name", WRITERS)
def test_a_control_token_in_text_is_read_as_its_characters(
    tiny: Callable[[str], Any], name: str, lookalike: str
) -> None:
    renderer = tiny(name)
    control = specials(renderer)

    def count(text: str) -> list[int]:
        messages = [
            Message("system", text),
            *TWO,
            Message("assistant", text),
            Message("user", text),
        ]
        return [i for i in renderer.prompt(messages) if i in control]

    said = f"say {lookalike}{lookalike} now"
    assert count(said) == count("say so now")
    completion = renderer.completion(said)
    assert control.isdisjoint(completion[:-1])
    assert renderer.decode(completion).lstrip("\n ") == said


def test_the_published_wrappers_read_control_tokens_and_the_renderers_do_not(
    tiny: Callable[[str], Any],
) -> None:
    first, fourth = tiny("chatglm1").tokenizer, tiny("glm4").tokenizer
    # the blanks beside the token are lost, and each part begins with a space of its own
    assert first.encode("a <sop> b", add_special_tokens=False) == [
        *spelled1("▁a"),
        SOP1,
        *spelled1("▁b"),
    ]
    assert first.encode_text("a <sop> b") == spelled1("▁a▁<sop>▁b")
    assert first.encode("<sop>") == [SOP1, GMASK1, SOP1]
    assert fourth.encode("a<|user|>b") == [GMASK4, SOP4, ord("a"), USER4, ord("b")]
    assert fourth.encode_text("a<|user|>b") == list(b"a<|user|>b")


def test_published_decoding_shows_what_streams_leave_out(tiny: Callable[[str], Any]) -> None:
    first, second, third, fourth = (tiny(name).tokenizer for name in WRITERS)
    ids = [3, *spelled1("▁a▁,▁b"), EOP1]
    assert first.decode(ids) == "a, b"  # tidied, as transformers does it
    assert first.decode_window(ids[1:]) == "a , b"
    assert second.decode([GMASK2, SOP2, *spelled2("▁a"), 2]) == "a"
    assert third.decode([GMASK2, USER3, *spelled2("▁a"), 2]) == "[gMASK]<|user|> a"
    assert third.encode_roles("<|user|>a") == [USER3, *spelled2("▁a")]
    assert fourth.decode([GMASK4, *b"ab", USER4, *b"c"]) == "[gMASK] ab <|user|> c"
    assert fourth.decode([GMASK4, *b"ab", USER4, *b"c"], skip_special_tokens=True) == "abc"


# Streams


def shown(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    pieces = [*map(detokenizer.push, ids), detokenizer.finish()]
    assert detokenizer.text == "".join(pieces)
    return pieces


@pytest.mark.parametrize("name", WRITERS)
def test_an_answer_streams_without_its_blank_line_and_never_half_a_character(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    text = "你好, a b\n\n  在吗 😀\n x."
    pieces = shown(renderer.detokenizer(), renderer.completion(text))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert renderer.clean_answer(renderer.decode(renderer.completion("yes."))) == "yes."


@pytest.mark.parametrize("name", WRITERS)
def test_half_a_character_is_marked_until_it_is_whole(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    ids = renderer.completion("a😀", complete=False)
    for cut in (1, 2, 3):
        assert renderer.decode(ids[:-cut]).endswith("\ufffd")
    assert renderer.decode(ids).lstrip("\n ") == "a😀"


@pytest.mark.parametrize("name", WRITERS)
def test_a_blank_line_that_opens_an_answer_is_no_stop_string(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    detokenizer = renderer.detokenizer(stop=("\n",))
    pieces = []
    for token_id in renderer.completion("a b\nc"):
        pieces.append(detokenizer.push(token_id))
        if detokenizer.stopped:
            break
    assert "".join(pieces) + detokenizer.finish() == "a b"
    assert detokenizer.stopped


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("ab ,.你😀\n\t<n>|"), max_size=30))
def test_any_text_streams_as_it_was_written(tiny: Callable[[str], Any], text: str) -> None:
    for name in ("chatglm2", "chatglm3", "glm4"):
        renderer = tiny(name)
        ids = renderer.completion(f"a{text}")
        assert "".join(shown(renderer.detokenizer(), ids)) == f"a{text}", name


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("ab ,.你\n\t<n>|"), max_size=20), st.data())
def test_what_follows_a_prefill_keeps_the_blanks_it_begins_with(
    tiny: Callable[[str], Any], text: str, data: st.DataObject
) -> None:
    for name in ("chatglm2", "chatglm3", "glm4"):
        renderer = tiny(name)
        ids = renderer.completion(f"a{text}", complete=False)
        opening = len(renderer.completion("", complete=False))
        cut = data.draw(st.integers(opening + 1, len(ids)))
        before = renderer.decode(ids[:cut])
        assume(not before.endswith("\ufffd"))
        follows = "".join(shown(renderer.detokenizer((), ids[:cut]), ids[cut:]))
        assert before + follows == renderer.decode(ids), name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=25))
def test_any_ids_stream_as_they_decode(tiny: Callable[[str], Any], tail: list[int]) -> None:
    for name in WRITERS:
        renderer = tiny(name)
        ids = [*renderer.tokenizer.encode_text("a"), *tail]
        whole = renderer.decode(ids).rstrip("\ufffd")
        assert "".join(shown(Detokenizer(renderer.decode), ids)) == whole, name


def test_chatglm1_answers_get_full_width_punctuation_beside_chinese(
    tiny: Callable[[str], Any],
) -> None:
    assert tiny("chatglm1").clean_answer(" 你好,a,b! 吗?:1:2 ") == "你好，a,b! 吗？:1:2"
    for name in ("chatglm2", "chatglm3", "glm4"):
        assert tiny(name).clean_answer("\n 你好,[[训练时间]] ") == "你好,2023年"


# Folders


@pytest.mark.parametrize(
    ("name", "settings_change", "family"),
    [
        ("/srv/models/mine", {"added_tokens_decoder": {"9": {"content": "<|observation|>"}}}, "3"),
        ("/srv/ChatGLM3-tuned", {}, "3"),
        ("/srv/chatglm2-6b-32k", {}, "2"),
    ],
)
def test_the_second_and_third_generation_are_told_apart(
    tmp_path: Path, name: str, settings_change: dict[str, Any], family: str
) -> None:
    folder = write_chatglm2(tmp_path / "model", name=name)
    change_json(folder / "tokenizer_config.json", **settings_change)
    assert type(load_chatglm_renderer(folder)).__name__ == f"ChatGLM{family}Renderer"


def test_the_name_of_the_config_and_of_the_folder_tell_the_generation(tmp_path: Path) -> None:
    folder = write_chatglm2(tmp_path / "chatglm2", name="mine")
    assert type(load_chatglm_renderer(folder)).__name__ == "ChatGLM2Renderer"
    change_json(folder / "config.json", _name_or_path="THUDM/chatglm3-6b")
    assert type(load_chatglm_renderer(folder)).__name__ == "ChatGLM3Renderer"


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **changes)


def tokenizer_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "tokenizer_config.json", **changes)


def vocabulary(content: bytes, name: str = "tokenizer.model") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "another model": ("glm4", config(model_type="llama"), "is no ChatGLM"),
    "no config": ("glm4", without("config.json"), "no readable config.json"),
    "no settings": ("chatglm2", without("tokenizer_config.json"), "readable tokenizer_config.json"),
    "settings of another shape": (
        "chatglm2",
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        "is not an object",
    ),
    "no first vocabulary": ("chatglm1", without("ice_text.model"), "has no ice_text.model"),
    "no vocabulary": ("chatglm3", without("tokenizer.model"), "has no tokenizer.model"),
    "noise for a vocabulary": ("chatglm3", vocabulary(b"\xffnoise"), "cannot read the vocabulary"),
    "another vocabulary": (
        "chatglm1",
        lambda folder: (folder / "ice_text.model").write_bytes(
            (write_chatglm2(folder / "other") / "tokenizer.model").read_bytes()
        ),
        "ice_text.model has no piece '<sop>'",
    ),
    "too few weights": ("chatglm2", config(padded_vocab_size=300), "do not fit a model with 300"),
    "another end": ("chatglm1", config(eos_token_id=130005), "130005] by config.json"),
    "lower case": ("chatglm1", tokenizer_config(do_lower_case=True), "do_lower_case"),
    "an odd offset": ("chatglm1", tokenizer_config(num_image_tokens="x"), "not a number"),
    "either generation": ("chatglm3", tokenizer_config(name_or_path="x"), "does not say which"),
    "no special tokens": ("glm4", tokenizer_config(added_tokens_decoder={}), r"lists no \[gMASK\]"),
    "odd special tokens": ("glm4", tokenizer_config(added_tokens_decoder={"x": 1}), "as published"),
    "shared ids": (
        "glm4",
        tokenizer_config(added_tokens_decoder={"5": {"content": "<sop>"}}),
        "share ids: <sop>",
    ),
    "a rank line that is none": ("glm4", vocabulary(b"IQ== 0\nIg== x\n"), "no list of token ranks"),
    "a rank given twice": ("glm4", vocabulary(b"IQ== 0\nIg== 0\n"), "each rank once"),
    "a missing byte": ("glm4", vocabulary(b"IQ== 0\nIg== 1\n"), "256 single bytes"),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path: Path, damage: str) -> None:
    family, change, reason = REFUSED[damage]
    folder = WRITERS[family](tmp_path / "model")
    change(folder)
    with pytest.raises(ModelUnavailable, match=reason):
        load_chatglm_renderer(folder)


def test_only_folders_of_the_family_are_taken_for_it(tmp_path: Path) -> None:
    assert not is_chatglm(tmp_path)
    folder = write_glm4(tmp_path / "model")
    assert is_chatglm(folder)
    change_json(folder / "config.json", model_type="glm")  # what transformers reads by itself
    assert not is_chatglm(folder)
