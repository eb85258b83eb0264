"""The tests that documents name as proof are there."""

from __future__ import annotations

import re
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
