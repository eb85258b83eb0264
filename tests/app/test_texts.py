"""The pages' texts: complete in every language, used, and chosen by header or cookie."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from app import texts
from app.texts import COOKIE, LANGUAGES, catalogue, language_for, language_of, say
from app.texts.languages import LOWER_FLOOR_AREAS, TextsIncomplete, placeholders, read_texts
from app.ui.labels import I18N, LanguageOfRequest, text
from feedback_store.storage.statement_store import REASONS_OF

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "app/texts"
FLOORS = ("engine", "feedback_store", "tuning", "deploy", "app")
ALL = read_texts(FOLDER)
ENGLISH = ALL.languages["en"]
AREAS = {key.partition(".")[0] for key in ENGLISH}
KEY = re.compile(rf"({'|'.join(sorted(AREAS))})\.[\w.*-]*[\w*]")
ANYTHING = "*"  # stands for a value in an f-string, and for a placeholder in a text
# Said by the operating system and SQLite, or made of a verdict and its reason by `app.service`;
# test_error_texts.py has them said
# Put together elsewhere; of the story see tests/app/html/test_story.py
ELSEWHERE = ("words.system.", "words.bundle_", "words.story.", "errors.read_both_ways")


# Whole


def test_every_language_says_the_same_things_of_the_same_values() -> None:
    assert set(LANGUAGES) == {"en", "zh"}
    for language in ALL.languages.values():
        assert list(language) == list(ENGLISH)  # in the same order, for whoever edits the files
        for key, said in language.items():
            assert said.strip(), key
            assert placeholders(said) == placeholders(ENGLISH[key]), key


def test_chinese_texts_are_chinese() -> None:
    left = [
        key
        for key, said in ALL.languages["zh"].items()
        if not re.search(r"[\u4e00-\u9fff]", said) and re.search(r"\w{3}", _with_blanks(said))
    ]
    assert left == ["words.nice"]  # the name of a command


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda tree: tree["chat"].pop("send"), "zz.yaml lacks chat.send"),
        (
            lambda tree: tree["chat"].update(extra="?"),
            "zz.yaml has chat.extra, which en.yaml lacks",
        ),
        (
            lambda tree: tree["console"].update(fact="{name}"),
            "fills console.fact with other values",
        ),
        (lambda tree: tree["chat"].update(send=True), "the text chat.send is bool, not text"),
    ],
)
def test_an_incomplete_language_is_refused_by_name(tmp_path: Path, damage: Any, said: str) -> None:
    tree = _third_language(tmp_path)
    damage(tree)
    (tmp_path / "zz.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
    with pytest.raises(TextsIncomplete, match=re.escape(said)):
        read_texts(tmp_path)


def test_a_folder_without_english_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextsIncomplete, match=r"no en\.yaml"):
        read_texts(tmp_path)


def test_a_third_language_is_one_file(tmp_path: Path) -> None:
    tree = _third_language(tmp_path)
    tree["chat"]["send"] = "Senden"
    tree["errors"]["queue_full"] = "Es warten schon {count} Antworten"
    (tmp_path / "de.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
    three = read_texts(tmp_path)
    assert three.language_of("de-AT,en;q=0.5") == "de"
    assert three.say("chat.send", "de") == "Senden"
    assert three.catalogue("de", "chat")["send"] == "Senden"
    sentence = "7 answers are waiting; try again later"
    assert three.translated(sentence, "de") == "Es warten schon 7 Antworten"


def _third_language(folder: Path) -> Any:
    """The files of all languages in a folder; returns the English texts, to be another one's."""
    for file in FOLDER.glob("*.yaml"):
        shutil.copy(file, folder)
    return yaml.safe_load((folder / "en.yaml").read_text("utf-8"))


# Used


def test_every_key_in_the_sources_is_known() -> None:
    unknown = {key for key in _keys_in_sources() if not any(_fits(key, known) for known in ENGLISH)}
    assert unknown == set()


def test_every_text_is_used() -> None:
    used = _keys_in_sources()
    unused = {
        key
        for key in ENGLISH
        if not key.startswith(LOWER_FLOOR_AREAS) and not any(_fits(each, key) for each in used)
    }
    assert unused == set()


def test_what_the_floors_below_say_reads_as_there() -> None:
    sentences = set(_sentences_below())
    sentences |= {f"{begun}{ANYTHING}" for begun in sentences if begun.endswith(" ")}
    patterns = [(s, _regex(s)) for s in sentences if ANYTHING in s and len(s) > 8]
    lost = set()
    for key, said in ENGLISH.items():
        if key.startswith(LOWER_FLOOR_AREAS) and not key.startswith(ELSEWHERE):
            plain = _with_blanks(said)
            if plain not in sentences and not any(
                2 * len(s) > len(plain) and pattern.fullmatch(plain) for s, pattern in patterns
            ):
                lost.add(key)
    assert lost == set()


def test_every_reason_of_a_vote_has_a_name() -> None:
    assert {r for reasons in REASONS_OF.values() for r in reasons} == set(
        catalogue("en", "reasons")
    )


def _keys_in_sources() -> set[str]:
    """Every key that the pages' Python and scripts name; `*` where a value stands in it."""
    found: set[str] = set()
    rooms = (ROOT / "app" / room for room in ("ui", "html", "texts"))
    for file in (file for room in rooms for file in room.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        found |= {said for said in _strings(tree) if KEY.fullmatch(said)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node) in ("text", "say", "toast") and node.args:
                found |= {_in_chat(said) for said in _strings(node.args[0])}
            if isinstance(node, ast.Call) and _name(node) == "heads":
                found |= {f"console.{said}.*" for said in _strings(node.args[0])}
    for script in (ROOT / "app/ui").rglob("*.[jh][st]*"):
        named = re.findall(r"""\b(?:text|say|t)\(["'`]([^"'`]+)""", script.read_text("utf-8"))
        found |= {_in_chat(re.sub(r"\$\{[^}]*\}", ANYTHING, key)) for key in named}
    return {key for key in found if key}


def _name(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _in_chat(key: str) -> str:
    """A key with its area, which the chat page leaves out."""
    if not re.fullmatch(r"[\w.*-]+", key) or "." in key:
        return key if KEY.fullmatch(key) else ""
    return key.replace("reason_", "reasons.", 1) if key.startswith("reason_") else f"chat.{key}"


def _fits(named: str, key: str) -> bool:
    return re.fullmatch(re.escape(named).replace(r"\*", r"[^.]+"), key) is not None


def _sentences_below() -> Iterator[str]:
    for floor in FLOORS:
        for file in (ROOT / floor).rglob("*.py"):
            yield from _strings(ast.parse(file.read_text("utf-8")))


def _strings(tree: ast.AST) -> Iterator[str]:
    """Every string in a syntax tree, and every f-string with `*` for its values."""
    below = list(ast.iter_child_nodes(tree))
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.value
    elif isinstance(tree, ast.JoinedStr):
        fixed = [str(p.value) if isinstance(p, ast.Constant) else ANYTHING for p in tree.values]
        yield "".join(fixed)
        below = [part for part in below if not isinstance(part, ast.Constant)]
    for node in below:
        yield from _strings(node)


def _with_blanks(said: str) -> str:
    return re.sub(r"\{\w+\}", ANYTHING, said)


def _regex(sentence: str) -> re.Pattern[str]:
    return re.compile(re.escape(sentence).replace(r"\*", ".*"), re.DOTALL)


# Chosen


@pytest.mark.parametrize(
    ("header", "cookie", "language"),
    [
        (None, None, "en"),
        ("", None, "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", None, "zh"),
        ("zh", None, "zh"),
        ("ZH-hans-CN", None, "zh"),
        ("fr-FR,fr;q=0.9", None, "en"),
        ("fr,zh;q=0.3,en;q=0.2", None, "zh"),
        ("en;q=0.4, zh;q=0.9", None, "zh"),
        ("zh;q=0, en", None, "en"),
        ("zh;q=nan, *;q=0.1", None, "en"),
        (";;;q=,,zh;level=1", None, "zh"),
        ("zh", "en", "en"),
        ("en", "zh", "zh"),
        ("zh", "tlh", "zh"),
        ("zh", "", "zh"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_browsers(
    header: str | None, cookie: str | None, language: str
) -> None:
    assert language_of(header, cookie) == language
    headers = {"accept-language": header} if header is not None else {}
    if cookie is not None:
        headers["cookie"] = f"other=1; {COOKIE}={cookie}"
    assert language_for(SimpleNamespace(headers=headers)) == language


def test_a_page_is_sent_labels_in_its_language_whatever_its_script_would_choose() -> None:
    sent: list[dict[str, dict[str, str]]] = []

    async def page(_scope: Any, _receive: Any, _send: Any) -> None:
        sent.append(I18N.translations_dict)

    cookie = (b"cookie", f"{COOKIE}=zh".encode())
    headers = [(b"accept-language", b"en"), cookie]
    middleware: Any = LanguageOfRequest(page)
    asyncio.run(middleware({"type": "http", "headers": headers}, None, None))
    (labels,) = sent
    assert (
        labels["en"]["console.overview.tune"] == labels["zh"]["console.overview.tune"] == "开始训练"
    )
    assert not any(key.startswith(LOWER_FLOOR_AREAS) for key in labels["en"])


def test_a_text_takes_its_values_and_a_key_must_be_known() -> None:
    assert say("console.fact", "zh", name="a", value="{b}") == "a：{b}"
    assert say("console.fact", "tlh", name="a", value="b") == "a: b"
    for wrong in (text, lambda key: say(key, "en"), lambda key: texts.toast(key, _ENGLISH)):
        with pytest.raises(KeyError):
            wrong("console.no_such_text")


_ENGLISH = SimpleNamespace(headers={})
