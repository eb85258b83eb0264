"""ChatGLM's chat formats and streams over tiny vocabularies, whose ids can be told by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.messages import Message
from engine.prompts.chatglm import load_chatglm_renderer
from engine.prompts.detokenizer import Detokenizer
from tests.support.chatglm_folders import (
    ALPHABET,
    GLM4_FIRST_SPECIAL,
    shown,
    write_chatglm1,
    write_chatglm2,
    write_chatglm3,
    write_glm4,
)

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


@pytest.mark.parametrize("name", WRITERS)
def test_a_raw_text_has_the_ids_of_the_published_wrapper_alone(
    tiny: Callable[[str], Any], name: str
) -> None:
    renderer = tiny(name)
    tokenizer = renderer.tokenizer
    text = tuple(tokenizer.encode_text("hello"))
    if name == "chatglm1":  # its marks follow the text that they end
        assert renderer.raw("hello") == (*text, tokenizer.gmask_id, tokenizer.bos_id)
    else:
        assert renderer.raw("hello") == (*tokenizer.prefix, *text)


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
