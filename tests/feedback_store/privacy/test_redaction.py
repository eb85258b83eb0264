"""What is hidden from training, what is left alone, and how sure and fast that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback_store.privacy.redaction import Redactor
from tests.feedback_store.synthetic_pii import (
    MAKERS,
    PER_KIND,
    TOKENS,
    Item,
    planted,
    synthetic_items,
)

DATA = Path(
    os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[3].joinpath("../shared/data"))
)
REDACTOR = Redactor()


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.kind, text[finding.begin : finding.end]) for finding in REDACTOR.find(text)]


# Recall: 25 made-up items of each of 8 kinds


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_200_made_up_items_at_least_95_percent_are_replaced_exactly(seed: int) -> None:
    items = synthetic_items(seed)
    assert Counter(item.kind for item in items) == dict.fromkeys([*MAKERS, "SECRET"], PER_KIND)
    missed = [item for item in items if REDACTOR.redact(item.text) != item.replaced()]
    # The issue asks for 95% over all; 98.5% is what holds, and no kind may lag behind.
    assert len(missed) <= 3, missed
    assert max(Counter(item.kind for item in missed).values(), default=0) <= 1, missed


@pytest.mark.parametrize("kind", ["CARD", "IBAN", "CN_ID"])
def test_a_number_whose_check_digit_is_wrong_is_not_of_its_kind(kind: str) -> None:
    for item in (item for item in synthetic_items(4) if item.kind == kind):
        last = item.value[-1]
        wrong = "1" if last in "0Xx" else str((int(last) + 1) % 10) if last.isdigit() else "0"
        broken = planted(kind, item.value[:-1] + wrong, "note @@ end")
        assert (kind, broken.value) not in found(broken.text)


@pytest.mark.parametrize("make", TOKENS)
def test_each_kind_of_token_is_hidden_to_its_last_character(make: Callable[[Random], str]) -> None:
    for seed in range(10):
        token = make(Random(seed))
        assert REDACTOR.redact(f"use {token} here") == "use <SECRET> here"
        assert REDACTOR.redact(f"使用{token}即可") == "使用<SECRET>即可"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("手机１３８００１３８００１，邮箱a＠example.com", "手机<CN_MOBILE>，邮箱<EMAIL>"),
        ("(+86) 138 0013 8001", "<CN_MOBILE>"),
        ("Tel: 030/1234567", "Tel: <PHONE>"),
        ("call me at 020 7946 0958", "call me at <PHONE>"),
        ("电话号码是718-0167，", "电话号码是<PHONE>，"),
        ("0049 30 23125123", "<PHONE>"),
        ("+1 212 555 0123 2 apples", "<PHONE> 2 apples"),
        ("5 4111 1111 1111 1111", "5 <CARD>"),
        ("DE89 3704 0044 0532 0130 00 IS MINE", "<IBAN> IS MINE"),
        ("http://10.1.2.3:80/ and [2001:db8::1]:443", "http://<IP>:80/ and [<IP>]:443"),
        ("ftp://ann:secretpw9@example.com/", "ftp://ann:<SECRET>@example.com/"),
        ("token: password: a1B2c3D4e5", "token: password: <SECRET>"),
        ("密码是Ab3dEf9h。", "密码是<SECRET>。"),
        ("a@example.com,b@example.com;c@example.com", "<EMAIL>,<EMAIL>;<EMAIL>"),
        ("<b>a@example.com</b>", "<b><EMAIL></b>"),
    ],
)
def test_it_is_found_as_people_write_it(text: str, redacted: str) -> None:
    assert REDACTOR.redact(text) == redacted


def test_a_private_key_that_was_cut_off_is_hidden_and_the_text_behind_it_stays() -> None:
    lines = "\n".join(["MIIEpAIBAAKCAQEA" * 4] * 3)
    text = f"my key:\n-----BEGIN RSA PRIVATE KEY-----\n{lines}\nso what now?"
    assert REDACTOR.redact(text) == "my key:\n<SECRET>\nso what now?"


def test_of_two_that_overlap_the_longer_is_hidden() -> None:
    text = 'password = "a1B2c3D4@example.com-9f8e7d"'
    assert found(text) == [("SECRET", "a1B2c3D4@example.com-9f8e7d")]


# What is left alone


@pytest.mark.parametrize(
    "text",
    [
        'v1.2.3.4, "version": "1.2.3.4", pkg==1.2.3.4, pkg-1.2.3.4.tar.gz, Agent/1.2.3.4',
        "127.0.0.1 0.0.0.0 255.255.255.0 224.0.0.1 ::1 :: and OID 1.3.6.1.4.1",
        "x[1::2] std::vector<int> 12:34:56 2024-05-01T10:20:30",
        "1700000000 1700000000123 2147483647 4294967295 3.141592653589793",
        "It cost $15000000000, or 15000000000 in all, a loss of -13800138001.",
        "a@b.dot(c) and a@property and user@host",
        "password = get_password1('x'); token: bytes32; api_key = OPENAI_API_KEY_2",
        'secret = os.environ["SECRET_1"]; password: str | None = None; tokens=4096',
        "sk-toggleable__content-arrow1 is a class of a style sheet",
        "-----BEGIN RSA PRIVATE KEY----- is how such a file begins",
        "550e8400-e29b-41d4-a716-446655440000 d41d8cd98f00b204e9800998ecf8427e",
        "1.519 829 846 0570 e-16 and -658.227 5956",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert found(text) == []
    assert REDACTOR.redact(text) == text


# Chosen before anything was measured: code that deals with addresses, dates, numbers and keys.
# `ipaddress` is not among them: its documentation is full of addresses, which are true findings.
PACKAGES = ("json", "http", "email", "asyncio", "urllib", "xml", "logging", "sqlite3")
MODULES = (
    "_pydecimal",
    "fractions",
    "statistics",
    "random",
    "datetime",
    "calendar",
    "colorsys",
    "hashlib",
    "hmac",
    "ssl",
    "smtplib",
    "imaplib",
    "ftplib",
    "netrc",
    "getpass",
    "uuid",
    "zipfile",
    "tarfile",
    "struct",
    "turtle",
    "mimetypes",
    "socket",
    "heapq",
    "locale",
    "secrets",
    "base64",
)


def library_sources() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    files = [path for name in PACKAGES for path in sorted((library / name).rglob("*.py"))]
    files += [library / f"{name}.py" for name in MODULES if (library / f"{name}.py").is_file()]
    return [path.read_text(encoding="utf-8") for path in files]


@pytest.mark.integration
def test_of_real_code_under_2_percent_of_the_lines_are_touched() -> None:
    lines = 0
    touched: Counter[str] = Counter()
    for source in library_sources():
        lines += source.count("\n")
        flagged = {(f.kind, source.count("\n", 0, f.begin)) for f in REDACTOR.find(source)}
        touched.update(kind for kind, _ in flagged)
    assert lines > 20_000
    # The issue allows 2%; 0.3% is what holds, and nearly all of it are the authors' addresses.
    assert touched.total() <= 0.003 * lines, touched
    assert touched.total() - touched["EMAIL"] <= 0.0003 * lines, touched


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize(
    ("name", "key", "most"),
    [
        # Arithmetic with marks like <<48/2=24>>. One model answer holds "150-1200-2000".
        ("gsm8k_train_1000.jsonl", "answer", 0),
        ("gsm8k_solutions_dev600.jsonl", None, 1),
        ("oasst_trees_dev.jsonl", "text", 0),  # 928 messages of people, code among them
        ("cmath_dev_half.jsonl", None, 0),
        ("xcopa_zh_val.jsonl", None, 0),
    ],
)
def test_arithmetic_and_prose_are_left_alone(name: str, key: str | None, most: int) -> None:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"needs {path} (set BURNISH_TEST_DATA)")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = list(strings(records) if key is None else values(records, key))
    assert len(texts) >= 100
    flagged = [text for text in texts if REDACTOR.find(text)]
    assert len(flagged) <= most, flagged


def values(value: object, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            yield value[key]
        for item in value.values():
            yield from values(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from values(item, key)


# What holds for any text

ITEMS: list[Item] = [item for seed in (5, 6) for item in synthetic_items(seed)]
PIECES = st.one_of(
    st.sampled_from([item.value for item in ITEMS]),
    st.sampled_from([item.text for item in ITEMS]),
    st.sampled_from(
        [
            "",
            " ",
            "+",
            "-",
            ".",
            ":",
            "@",
            "<",
            ">",
            "(",
            "password=",
            "电话",
            "v",
            "1",
            "a",
            "，",
            "<EMAIL>",
            "<SECRET>",
            "Bearer ",
            "://u:",
            "\n",
            "：",
            "00",
        ]
    ),
    st.text(alphabet="ab1@.:-+=<> 手", max_size=8),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(deadline=None)  # the time depends on who else is at work
@given(TEXTS)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    redacted = REDACTOR.redact(text)
    assert REDACTOR.find(redacted) == ()
    assert REDACTOR.redact(redacted) == redacted


@settings(deadline=None)
@given(TEXTS)
def test_findings_are_in_order_and_never_overlap(text: str) -> None:
    findings = REDACTOR.find(text)
    edges = [0, *(edge for f in findings for edge in (f.begin, f.end)), len(text)]
    assert edges == sorted(edges)
    assert all(f.begin < f.end and 0 < f.score <= 1 for f in findings)


@settings(deadline=None)
@given(TEXTS)
def test_only_what_is_found_is_replaced_and_every_other_character_stays(text: str) -> None:
    findings = REDACTOR.find(text)
    redacted = REDACTOR.redact(text)
    gained = sum(len(f.kind) + 2 - (f.end - f.begin) for f in findings)
    assert len(redacted) == len(text) + gained
    at = moved = 0
    for finding in findings:
        size = finding.begin - at
        assert redacted[moved : moved + size] == text[at : finding.begin]
        at, moved = finding.end, moved + size + len(finding.kind) + 2
    assert redacted[moved:] == text[at:]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Nd", "Cs"], exclude_characters="@")))
def test_a_text_without_digits_and_at_signs_is_unchanged(text: str) -> None:
    assert REDACTOR.redact(text) == text


# How fast, how safe


def test_a_thousand_texts_of_500_characters_take_a_moment() -> None:
    random = Random(7)
    code = "\n".join(library_sources())
    texts = [code[at : at + 500] for at in (random.randrange(len(code)) for _ in range(1000))]
    began = time.process_time()
    for text in texts:
        REDACTOR.redact(text)
    assert time.process_time() - began < 5  # measured: 0.3 s


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("a", 1_000_000),
        ("中", 1_000_000),
        (" ", 1_000_000),
        ("@", 1_000_000),
        ("7", 100_000),
        ("1 ", 100_000),
        ("a.", 100_000),
        ("a@", 100_000),
        ("+1", 100_000),
        ("::", 100_000),
        ("2001:", 100_000),
        ("DE12 ", 100_000),
        ("password=", 100_000),
        ("sk-", 100_000),
        ("eyJaaaaaaaaa.", 100_000),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", 100_000),
        ("+8613800138001", 30_000),
        ("a@example.com+", 30_000),
        ("138-0013-8001-", 30_000),
    ],
)
def test_a_long_text_made_to_be_slow_takes_time_in_proportion(unit: str, size: int) -> None:
    text = unit * (size // len(unit))
    began = time.process_time()
    REDACTOR.find(text)
    assert time.process_time() - began < 10  # measured: under 2 s each


def test_threads_may_share_one_from_its_first_use() -> None:
    texts = [item.text for item in synthetic_items(8)]
    shared = Redactor()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(shared.redact, texts))
    assert together == [REDACTOR.redact(text) for text in texts]


ALONE = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("looked for the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from feedback_store.privacy.redaction import Redactor
assert not {"phonenumbers", "stdnum"} & set(sys.modules), "heavy at import"
print(Redactor().redact(sys.argv[1]))
"""


def test_the_network_is_never_asked_and_libraries_wait_for_the_first_use() -> None:
    text = "ann@example.com, +44 20 7946 0958, DE89370400440532013000, password=aB3dE6gH9"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, text], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "<EMAIL>, <PHONE>, <IBAN>, password=<SECRET>", done.stderr
