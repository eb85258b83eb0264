"""The gain of each release as a drawing: one row a release, with its 95% intervals on one scale.

Inline SVG in the colours of `desk.css`, as `thumbs_plot` is. Knows the points; reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from app.html.desk_words import SHORT_ID
from app.texts import say, translated
from deploy.releases.trend import ReleasePoint, Trend
from tuning.evaluation.statistics import Interval

SCALE_WIDTH, ROW_HEIGHT = 1000, 12  # of one interval's drawing, which is stretched
MARGIN = 0.01  # of a share, beyond the outermost ends


def gains_html(trend: Trend, language: str) -> str:
    """Return the rows, the newest release first; "" where none was judged."""
    judged = [point for point in trend.releases if point.gain is not None]
    if not judged:
        return ""
    names = {point.release: _name(point) for point in trend.releases}
    ends = [end for point in judged for each in _gains(point) for end in (each.low, each.high)]
    scale = min(0.0, *ends) - MARGIN, max(0.0, *ends) + MARGIN
    rows = "".join(_row(point, names, scale, language) for point in reversed(judged))
    about = escape(say("console.trend.about", language))
    return f'<div class="desk"><p class="small">{about}</p><ol class="gains">{rows}</ol></div>'


def _row(
    point: ReleasePoint, names: Mapping[str, str], scale: tuple[float, float], language: str
) -> str:
    base = say("console.overview.base", language)
    state = say("console.desk.lineage_live", language) if point.is_live else point.verdict or ""
    lines = []
    if point.gain is not None:
        on = base if point.incumbent is None else names.get(point.incumbent, base)
        lines.append(_line(point.gain, on, "live" if point.is_live else "other-0", scale, language))
    if point.gain_on_base is not None and point.incumbent is not None:
        lines.append(_line(point.gain_on_base, base, "base", scale, language))
    return (
        f"<li><p><b>{escape(_name(point))}</b> <span>{escape(translated(state, language))}</span>"
        f"</p>{''.join(lines)}</li>"
    )


def _line(gain: Interval, on: str, style: str, scale: tuple[float, float], language: str) -> str:
    """One interval with its words; the line through zero is where nothing was gained."""
    low, estimate, high, zero = (
        _place(each, scale) for each in (gain.low, gain.estimate, gain.high, 0.0)
    )
    points = {
        name: f"{100 * value:+.0f}"
        for name, value in (("gain", gain.estimate), ("low", gain.low), ("high", gain.high))
    }
    said = say("console.desk.lineage_gain", language, on=on, **points)
    return (
        f'<div class="{style}"><svg viewBox="0 0 {SCALE_WIDTH} {ROW_HEIGHT}"'
        ' preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="zero" d="M{zero:.0f} 0V{ROW_HEIGHT}"/>'
        f'<path class="ends" d="M{low:.0f} {ROW_HEIGHT / 2}H{high:.0f}"/>'
        f'<path class="dot" d="M{estimate:.0f} {ROW_HEIGHT / 2}h0"/></svg>'
        f"<small>{escape(said)}</small></div>"
    )


def _place(share: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return SCALE_WIDTH * (share - low) / (high - low)


def _gains(point: ReleasePoint) -> Iterable[Interval]:
    return [gain for gain in (point.gain, point.gain_on_base) if gain is not None]


def _name(point: ReleasePoint) -> str:
    return f"r{point.number} ({point.release[SHORT_ID]})"
