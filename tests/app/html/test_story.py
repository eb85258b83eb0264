"""The story of a release on the page: in the person's language, and as text."""

from __future__ import annotations

import re

from app.html.story import story_html
from deploy.releases.events import (
    Activated,
    CanaryStarted,
    Judged,
    Promoted,
    Registered,
    ReleaseEvent,
    RolledBack,
)
from deploy.releases.story import STATEMENT_NAMES, tell_story

MINE, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
GAIN = {"estimate": 0.1, "low": 0.02, "high": 0.18}
EVENTS: tuple[ReleaseEvent, ...] = (
    Registered(bundle=MINE, snapshot=OTHER, sources=dict.fromkeys(STATEMENT_NAMES, 3), people=2),
    Judged(bundle=MINE, report={"verdict": "better", "gain": GAIN, "gain_on_base": GAIN}),
    CanaryStarted(bundle=MINE, actor="ann", plan={"share": 0.2}),
    Promoted(bundle=MINE, actor="ann", generation=1, previous=None),
    Activated(bundle=MINE, actor="ann", generation=1),
    Promoted(bundle=OTHER, actor="ann", generation=2, previous=MINE),
    RolledBack(bundle=MINE, actor="ann", generation=3, previous=OTHER),
)


def test_a_story_is_told_in_chinese_without_an_english_word() -> None:
    told = story_html(tell_story(EVENTS, MINE), "zh")
    assert told.count("<li>") == len(EVENTS)
    assert "<b>由 ann 上线</b>" in told
    assert "<small>3 个由比较得出的偏好对</small>" in told
    words = re.sub(r"<[^>]+>|[0-9a-f]{12,}|sha256:|ann", " ", told)
    assert re.findall(r"[A-Za-z]{2,}", words) == []


def test_what_a_record_quotes_is_text() -> None:
    quoting = Promoted(
        bundle=MINE, actor="ann", generation=1, previous=None, reason="<script>alert(1)</script>"
    )
    told = story_html(tell_story([quoting], MINE), "en")
    assert "promoted by ann: &lt;script&gt;alert(1)&lt;/script&gt;" in told
