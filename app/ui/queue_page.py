"""The console's page on which an operator compares answers, by keys alone.

Gradio sends a round trip for each key and has no place for the next pair, so this page is a script
of its own (`page/queue.js`), which has the next comparison before it is needed.
"""

from __future__ import annotations

from html import escape

from app.ui.texts import say

QUEUE_SCRIPT = "queue.js"
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


def queue_page(language: str) -> str:
    """Return the page's frame in a language; the script adds the visible content."""
    title = escape(say("chat.queue_title", language))
    return QUEUE_HTML.format(language=language, title=title, script=QUEUE_SCRIPT)
