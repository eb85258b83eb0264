"""The tests that documents name as proof are there; the README says the same in both languages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py)?(?:::(?P<names>[\w:]+))?(?:\[[^`]*)?`")


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda p: p.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    missing = []
    for line in document.read_text("utf-8").splitlines():
        file = ""
        for named in NAMED.finditer(line):
            file = named["file"] or file
            if not file:
                continue
            source = (ROOT / file).read_text("utf-8") if (ROOT / file).is_file() else ""
            names = (named["names"] or "").split("::") if named["names"] else []
            if not source or not all(
                re.search(rf"^ *((async )?def |class )?{n}\b", source, re.M) for n in names
            ):
                missing.append(named[0])
    assert missing == []


# The README in two languages

NUMBERS = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)*")
LINKS = re.compile(r"\]\(([^)]+)\)")


def readmes() -> tuple[str, str]:
    english, chinese = ((ROOT / f"README{end}.md").read_text("utf-8") for end in ("", ".zh"))
    return english, chinese


def test_the_readmes_give_the_same_commands() -> None:
    english, chinese = (re.findall(r"^```.*?^```", said, re.M | re.S) for said in readmes())
    assert english == chinese
    assert len(english) == 3
    english, chinese = (sorted(re.findall(r"`[^`\n]+`", said)) for said in readmes())
    assert english == chinese


def test_the_readmes_give_the_same_figures() -> None:
    english, chinese = (Counter(NUMBERS.findall(LINKS.sub("", said))) for said in readmes())
    assert english == chinese


def test_the_readmes_lead_to_the_same_places_and_to_each_other() -> None:
    english, chinese = (Counter(LINKS.findall(said)) for said in readmes())
    assert english - chinese == Counter(["README.zh.md"])
    assert chinese - english == Counter(["README.md"])


# The map of the house

MAPPED = re.compile(r"`(?P<name>[A-Za-z_.]+)` \(`(?P<file>[\w/]+\.(py|js))`\)")


def test_every_function_on_the_map_is_where_it_says() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    found = list(MAPPED.finditer(document))
    assert len(found) > 20
    lost = []
    for each in found:
        file = ROOT / each["file"]
        source = file.read_text("utf-8") if file.is_file() else ""
        names = each["name"].split(".")
        start = r"^ *(?:(?:export |async |def |class |function )*)"
        defined = [rf"{start}{name}\b[\[(:{{ ]" for name in names]
        if not all(re.search(pattern, source, re.M) for pattern in defined):
            lost.append(each[0])
    assert lost == []


def test_every_file_on_the_map_exists() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:app|deploy|engine|feedback_store|tuning)/[\w/.]*)`", document)
    assert [path for path in named if not (ROOT / path).exists()] == []
