"""The operator's desk as HTML: sentences and drawings before tables. Knows no gradio.

Links are relative to the console's own address, so that they hold behind a path prefix.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib import resources

from app.html.desk_words import DeskWords
from app.html.thumbs_plot import thumbs_plot
from app.learning.desk import DeskRelease, OpenKind
from app.texts import say, translated

# Where each kind is dealt with, and the command that does the same
NEED_LINKS: dict[OpenKind, tuple[str, str]] = {
    "candidate": ("#act", "burnish release promote"),
    "canary": ("#canary", "burnish canary status"),
    "failed_round": ("#rounds", "burnish loop status"),
    "bad_answers": ("inbox", "burnish feedback inbox"),
    "comparisons": ("compare", "burnish feedback siblings"),
    "drafts": ("drafts", "burnish data list"),
    "alerts": ("inbox#alerts", "burnish feedback alerts"),
}
HEAD_LINKS = {"chat": "../", "inbox": "inbox", "people": "people"}
NEWEST_RELEASES = 6


def desk_css() -> str:
    """Return the style sheet of the desk."""
    return resources.files("app.html").joinpath("desk.css").read_text("utf-8")


def head_html(language: str) -> str:
    """Return the head of the console: where else the operator may want to go."""
    links = "".join(
        f'<a href="{link}">{escape(say(f"console.head.{name}", language))}</a>'
        for name, link in HEAD_LINKS.items()
    )
    where = escape(say("console.head.links", language))
    return f'<nav class="desk head" aria-label="{where}"><b>Burnish</b>{links}</nav>'


def desk_html(words: DeskWords, waiting_answers: int) -> str:
    """Return what needs the operator, how it goes, and what happens next.

    `waiting_answers` are those that the engine writes or that wait for it now.
    """
    today = datetime.fromtimestamp(words.now, UTC).date()  # thumbs are counted by days of UTC
    return (
        '<div class="desk"><div class="columns">'
        + _section(words, "needs", _needs(words))
        + _section(words, "doing", thumbs_plot(words, today) + _figures(words, waiting_answers))
        + _section(words, "next", _next(words))
        + "</div></div>"
    )


def lineage_html(words: DeskWords) -> str:
    """Return the releases in short, the newest first: verdict, gain, what each learnt from."""
    newest = words.desk.releases[-NEWEST_RELEASES:]
    left_out = len(words.desk.releases) - len(newest)
    nodes = [_node(words, each) for each in reversed(newest)]
    if left_out:
        nodes.append(f'<li class="more">{_say(words, "lineage_more", count=left_out)}</li>')
    base = words.desk.live is None
    verdict = _say(words, "lineage_live") if base else ""
    nodes.append(
        f'<li class="{"live" if base else "was"}"><b>{escape(words.name(None))}</b>'
        f'<span class="verdict">{verdict}</span></li>'
    )
    about = _say(words, "lineage_points" if newest else "lineage_none")
    inner = f'<p class="small">{about}</p><ol class="lineage">{"".join(nodes)}</ol>'
    return f'<div class="desk">{_section(words, "lineage", inner)}</div>'


def _needs(words: DeskWords) -> str:
    if not words.desk.needs:
        return f'<p class="empty">{_say(words, "needs_nothing")}</p>'
    items = []
    for need in words.desk.needs:
        link, command = NEED_LINKS[need.kind]
        items.append(
            f"<li><span>{escape(words.need(need))}</span>"
            f'<a href="{link}">{_say(words, f"needs_{need.kind}_do")}</a>'
            f"<code>{escape(command)}</code></li>"
        )
    return f"<ul>{''.join(items)}</ul>"


def _figures(words: DeskWords, waiting_answers: int) -> str:
    queue = {say("console.desk.figures_queue", words.language): str(waiting_answers)}
    figures = {**words.figures(), **queue}
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in figures.items()
    )
    return f'<dl class="figures">{items}</dl>'


def _next(words: DeskWords) -> str:
    first = words.first_steps()
    steps = f'<p class="first">{escape(" ".join(first))}</p>' if first else ""
    ways = ""
    if words.desk.missing_pairs:
        ways = (
            f'<p class="ways"><a href="../">{_say(words, "first_chat")}</a>'
            f'<a href="compare">{_say(words, "first_judge")}</a></p>'
        )
    said, *rest = words.loop()
    return (
        f"{steps}{ways}<p>{escape(said)} {escape(' '.join(rest))}</p>"
        f'<p class="small" id="rounds">{escape(words.round())} <code>burnish loop status</code></p>'
    )


def _node(words: DeskWords, release: DeskRelease) -> str:
    """One release; those that never were live are indented, as branches that ended."""
    point = release.point
    kind = "live" if point.is_live else "was" if release.was_live else "branch"
    told = (words.gain(release), words.learnt_from(release), _why(words, release))
    facts = [fact for fact in told if fact]
    small = f"<small>{escape(' · '.join(facts))}</small>" if facts else ""
    return (
        f'<li class="{kind}"><b>{escape(words.name(point.release))}</b>'
        f'<span class="verdict">{escape(words.verdict(release))}</span>{small}</li>'
    )


def _why(words: DeskWords, release: DeskRelease) -> str:
    """The reason why a release was not let in; of a better one the gain says it."""
    if release.was_live or release.point.verdict == "better":
        return ""
    return translated(release.reason, words.language)


def _section(words: DeskWords, name: str, inner: str) -> str:
    title = _say(words, f"{name}_title")
    return f'<section class="{name}" aria-label="{title}"><h2>{title}</h2>{inner}</section>'


def _say(words: DeskWords, key: str, **values: object) -> str:
    return escape(say(f"console.desk.{key}", words.language, **values))
