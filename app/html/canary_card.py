"""The canary as HTML: both arms beside each other, how near a decision is, and what comes then.

Knows what is shown; reads nothing itself.
"""

from __future__ import annotations

import math
from html import escape

from app.html.desk_words import DeskWords
from app.learning.desk import ThumbShare
from app.texts import say, translated
from deploy.canary.canaries import CanaryStatus
from deploy.canary.plan import Arm
from deploy.releases.events import LOOP
from engine.units import DAY_SECONDS

ARMS: tuple[Arm, ...] = ("candidate", "live")


def no_canary_html(words: DeskWords) -> str:
    """Return what a canary is, and what a round of the loop does with a better release."""
    after = _say(words, f"after_{words.desk.better_release}")
    return (
        f'<div class="desk canary"><p>{_say(words, "none")}</p><p class="small">{after}</p></div>'
    )


def canary_html(words: DeskWords, status: CanaryStatus, started_by: str) -> str:
    """Return a canary that runs or has ended; `started_by` is a person's name or what acted.

    A reason may quote an adapter's file, so it stands in the record and not here.
    """
    canary = status.canary
    plan = canary.plan
    days = (min(words.now, canary.ended_at or words.now) - canary.started_at) / DAY_SECONDS
    who = _say(words, "by_loop") if canary.actor == LOOP else escape(started_by)
    names = {"candidate": words.name(plan.candidate), "live": words.name(plan.incumbent)}
    share, begun = f"{plan.share:.0%}", words.moment(canary.started_at)
    rule = "rule" if canary.runs else "ended"
    outcome = translated(str(canary.outcome), words.language)
    parts = (
        f"<p>{_say(words, 'is', share=share, **names)}"
        f' <span class="small">{_say(words, "started", who=who, when=begun)}</span></p>',
        f'<div class="arms">{"".join(_arm(words, status, arm, names[arm]) for arm in ARMS)}</div>',
        f"<dl class='meters'>{_evidence(words, status)}"
        + _meter(
            _say(words, "budget"),
            _say(
                words,
                "budget_is",
                votes=status.standing.votes,
                wanted=plan.votes,
                days=f"{days:.0f}",
                most=f"{plan.days:g}",
            ),
            max(status.standing.votes / plan.votes, days / plan.days),
        )
        + "</dl>",
        f"<p>{_say(words, rule, outcome=outcome, **names)}</p>",
        f"<p>{escape(translated(status.reason, words.language))}</p>" * bool(status.reason),
        '<p class="small"><code>burnish canary status</code></p>',
    )
    return f'<div class="desk canary">{"".join(parts)}</div>'


def _arm(words: DeskWords, status: CanaryStatus, arm: Arm, name: str) -> str:
    """One arm: its share of good verdicts as a bar, with the interval drawn on it."""
    counts = status.standing.arms[arm]
    title = f"<b>{escape(name)}</b> <span>{_say(words, f'arm_{arm}')}</span>"
    judged = counts.good + counts.bad
    if not judged:
        unjudged = f'<p class="small">{_say(words, "unjudged")}</p>'
        return f'<div class="arm {arm}"><p>{title}</p>{unjudged}</div>'
    share = ThumbShare(counts.good, counts.bad)
    low, high = share.interval
    said = _say(
        words,
        "judged",
        share=f"{share.share:.0%}",
        good=counts.good,
        judged=judged,
        low=f"{100 * low:.0f}",
        high=f"{100 * high:.0f}",
    )
    ties = f" {_say(words, 'ties', ties=counts.ties)}" if counts.ties else ""
    return (
        f'<div class="arm {arm}"><p>{title}</p>{_bar(share.share, (low, high))}'
        f'<p class="small">{said}{ties}</p></div>'
    )


def _evidence(words: DeskWords, status: CanaryStatus) -> str:
    """The distance to both decisions: logarithmic, since capital is won by multiplying."""
    standing = status.standing
    return "".join(
        _meter(
            _say(words, name),
            _say(words, f"{name}_is", value=f"{value:.2g}", needed=f"{needed:.0f}"),
            math.log(max(value, 1.0)) / math.log(needed),
        )
        for name, value, needed in (
            ("better", standing.better, standing.better_needed),
            ("worse", standing.worse, standing.worse_needed),
        )
    )


def _meter(name: str, said: str, part: float) -> str:
    return f"<div><dt>{name}</dt><dd>{_bar(part)}<span>{said}</span></dd></div>"


def _bar(part: float, interval: tuple[float, float] | None = None) -> str:
    """A bar of which a part is filled; drawn beside its words, so that it says nothing itself."""
    filled = 100 * min(1.0, max(0.0, part))
    ends = ""
    if interval is not None:
        low, high = (100 * end for end in interval)
        ends = f'<path class="ends" d="M{low:.1f} 4H{high:.1f}"/>'
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="all" width="100" height="8"/><rect class="part" width="{filled:.1f}"'
        f' height="8"/>{ends}</svg>'
    )


def _say(words: DeskWords, key: str, **values: object) -> str:
    return escape(say(f"console.canary.{key}", words.language, **values))
