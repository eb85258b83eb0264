"""The story of a release as HTML, one item an event. Knows the form of the story's lines."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from app.texts import translated

WHEN_CHARS = 18  # of a line: the time of an event, or blanks before its further facts


def story_html(lines: Iterable[str], language: str) -> str:
    """Return the story that `deploy.releases.story.tell_story` told."""
    events: list[tuple[str, list[str]]] = []
    for line in lines:
        when, said = line[:WHEN_CHARS].strip(), translated(line[WHEN_CHARS:], language)
        if when:
            events.append((when, [said]))
        else:
            events[-1][1].append(said)
    items = "".join(
        f"<li><time>{escape(when)}</time> <b>{escape(said[0])}</b>"
        f"{''.join(f'<small>{escape(each)}</small>' for each in said[1:])}</li>"
        for when, said in events
    )
    return f'<div class="desk"><ol class="story">{items}</ol></div>'
