"""The thumbs of each release by day as a drawing: the share of thumbs up, and how many there were.

Inline SVG in the colours of `desk.css`, so that it needs no script, follows light and dark, and is
the same on a phone: the drawing is stretched, its lines and words are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from html import escape

from app.html.desk_words import DeskWords
from app.learning.desk import thumb_shares
from app.texts import say
from feedback_store.view.ratings import DayRatings

DRAWN_DAYS = 30
DRAWN_RELEASES = 4  # beside the base model; the newest
WIDTH, HEIGHT, BARS = 1000, 200, 44  # of the drawing; its bars are in its lowest part
PLOT = HEIGHT - BARS
NAMED_DAYS = 4  # days named under the drawing


def thumbs_plot(words: DeskWords, today: date) -> str:
    """Return the drawing with its legend, or what is missing for it, as HTML."""
    first = today - timedelta(days=DRAWN_DAYS - 1)
    shown = [each for each in words.desk.thumbs if first <= date.fromisoformat(each.day) <= today]
    if not shown:
        return f'<p class="empty">{_say(words, "none")}</p>'
    begin = date.fromisoformat(shown[0].day)
    days = [begin + timedelta(days=n) for n in range((today - begin).days + 1)]
    styles = _styles(words, shown)
    series = "".join(
        _line([each for each in shown if each.adapter == release], days, style)
        for release, style in styles.items()
    )
    names = [days[round(n * (len(days) - 1) / (NAMED_DAYS - 1))] for n in range(NAMED_DAYS)]
    labels = "".join(f"<span>{day:%m-%d}</span>" for day in dict.fromkeys(names))
    return (
        f'<figure class="thumbs"><figcaption>{_say(words, "title")}</figcaption>'
        f'<div class="drawn" aria-hidden="true"><div class="share">'
        f"<span>100%</span><span>50%</span><span>0%</span></div>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f"{_grid()}{_bars(shown, days)}{series}</svg>"
        f'<div class="days">{labels}</div></div>'
        f"{_legend(words, shown, styles)}</figure>"
    )


def _styles(words: DeskWords, shown: Sequence[DayRatings]) -> dict[str | None, str]:
    """The class of each drawn release: the live one, the base model, or its place among others."""
    adapters = {each.adapter for each in shown}
    known = [each.point.release for each in words.desk.releases if each.point.release in adapters]
    styles: dict[str | None, str] = {None: "base"} if None in adapters else {}
    others = iter(range(DRAWN_RELEASES))
    for release in known[-DRAWN_RELEASES:]:
        styles[release] = f"other-{next(others)}"
    if words.desk.live in styles:
        styles[words.desk.live] = "live"
    return styles


def _grid() -> str:
    heights = (0, PLOT // 2, PLOT)
    return "".join(f'<path class="grid" d="M0 {y}H{WIDTH}"/>' for y in heights)


def _bars(shown: Sequence[DayRatings], days: Sequence[date]) -> str:
    """The number of thumbs a day, of all releases, under the lines."""
    counts = dict.fromkeys(days, 0)
    for each in shown:
        counts[date.fromisoformat(each.day)] += each.up + each.down
    most, wide = max(counts.values()), WIDTH / len(days)
    return "".join(
        f'<rect class="count" x="{n * wide + wide / 5:.1f}" width="{wide * 3 / 5:.1f}"'
        f' y="{HEIGHT - high:.1f}" height="{high:.1f}"><title>{day:%m-%d}: {count}</title></rect>'
        for n, (day, count) in enumerate(counts.items())
        if (high := (BARS - 8) * count / most)
    )


def _line(points: Sequence[DayRatings], days: Sequence[date], style: str) -> str:
    """The share of thumbs up of one release, a dot a day with a line through them."""
    wide = WIDTH / len(days)
    places = [
        (
            ((date.fromisoformat(each.day) - days[0]).days + 0.5) * wide,
            PLOT * each.down / (each.up + each.down),
        )
        for each in points
    ]
    through = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    # A line of no length with round ends is a dot that stretching leaves round
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    return f'<path class="line {style}" d="M{through}"/><path class="dots {style}" d="{dots}"/>'


def _legend(words: DeskWords, shown: Sequence[DayRatings], styles: dict[str | None, str]) -> str:
    shares = thumb_shares(shown)
    lines = "".join(
        f'<li><i class="{style}"></i><b>{escape(words.name(release))}</b>'
        f" {escape(words.thumbs(shares[release]))}</li>"
        for release, style in reversed(styles.items())
    )
    return f'<ul class="legend">{lines}</ul>'


def _say(words: DeskWords, key: str) -> str:
    return escape(say(f"console.desk.thumbs_{key}", words.language, days=DRAWN_DAYS))
