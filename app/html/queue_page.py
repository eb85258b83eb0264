"""The console's pages on which people compare answers and decide about drafts, by keys alone.

Gradio sends a round trip for each key and has no place for the next one, so each page is a script
of its own over `page/queue.js`, which has the next one before it is needed.
"""

from __future__ import annotations

from html import escape

from app.texts import say

COMPARISON_SCRIPT, DRAFT_SCRIPT = "comparison_queue.js", "draft_queue.js"
QUEUE_SCRIPTS = ("queue.js", COMPARISON_SCRIPT, DRAFT_SCRIPT)
QUEUE_HTML = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../page/page.css">
<script type="module" src="../page/{script}"></script>
</head>
<body></body>
</html>
"""


def queue_page(language: str, title_key: str, script: str) -> str:
    """Return a page's frame in a language; its script adds the visible content."""
    title = escape(say(title_key, language))
    return QUEUE_HTML.format(language=language, title=title, script=script)
