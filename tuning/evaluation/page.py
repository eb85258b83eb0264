"""An evaluation as one page with plots. It holds all it needs and asks no other server.

Knows the document in `evaluation.json`; computes nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tuning.evaluation.roles import MODEL_ROLES, ModelRole

COLOURS = {"candidate": "#c2571a", "incumbent": "#3b6ea5", "base": "#9a9a9a"}
SHARES = {
    "finished": "finished",
    "empty": "empty",
    "repetition": "repeated phrases",
    "refused": "refused",
    "language_kept": "language kept",
    "format_kept": "form kept",
    "thoughts_parsed": "thoughts parsed",
}
STYLE = (
    "body{font:16px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}code{overflow-wrap:anywhere}"
)
Document = Mapping[str, Any]


def render_page(document: Document) -> str:
    """The page's HTML."""
    verdict = document["verdict"]
    plots = "\n".join(
        f"<h2>{title}</h2>\n"
        + make(document).to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{number}")
        for number, (title, make) in enumerate(PLOTS.items())
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Evaluation: {escape(verdict['verdict'])}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>\n"
        f"<h1>{escape(verdict['verdict'])}</h1><p>{escape(verdict['reason'])}</p>\n"
        f"{_names(document)}{_figures(document)}{_guards(verdict)}{plots}\n</body></html>\n"
    )


def _names(document: Document) -> str:
    rows = ((name, document[name]) for name in (*MODEL_ROLES, "snapshot"))
    return "<p>" + "<br>".join(f"{n}: <code>{escape(str(d))}</code>" for n, d in rows) + "</p>\n"


def _figures(document: Document) -> str:
    models = document["summary"]["models"]
    rows = [[name, *(_number(models[r][name]) for r in MODEL_ROLES)] for name in models["base"]]
    longer = _number(document["summary"]["longer_wins_accuracy"])
    note = f"<p>Accuracy of &ldquo;the longer answer wins&rdquo;: {longer}</p>\n"
    return _table("Figures", ["", *MODEL_ROLES], rows) + note


def _guards(verdict: Document) -> str:
    rows = [
        [
            guard["name"],
            *(_number(guard["harm"][key]) for key in ("estimate", "low", "high")),
            _number(guard["tolerance"]),
            "refused" if guard["refused"] else "passed",
        ]
        for guard in verdict["guards"]
    ]
    head = ["guard", "harm", "at least", "at most", "tolerated", ""]
    return _table("Guards", head, rows)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in (("th", head), *(("td", row) for row in rows))
    ]
    return f"<h2>{title}</h2><table>{''.join(lines)}</table>\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plot_accuracy(document: Document) -> go.Figure:
    models = document["summary"]["models"]
    names = {
        "reward_accuracy_per_token": "reward per token",
        "reward_accuracy": "reward, summed",
        "accuracy": "likelihood per token",
        "accuracy_summed": "likelihood, summed",
    }
    figure = _bars(models, names)
    if (longer := document["summary"]["longer_wins_accuracy"]) is not None:
        figure.add_hline(y=longer, line_dash="dot", annotation_text="longer wins")
    return figure


def _plot_differences(document: Document) -> go.Figure:
    """The candidate's differences with their intervals."""
    figure = go.Figure()
    for other, differences in document["summary"]["differences"].items():
        estimates = [d["estimate"] for d in differences.values()]
        figure.add_scatter(
            x=list(differences),
            y=estimates,
            mode="markers",
            name=f"candidate - {other}",
            marker_color=COLOURS[other],
            error_y={
                "array": [d["high"] - d["estimate"] for d in differences.values()],
                "arrayminus": [d["estimate"] - d["low"] for d in differences.values()],
            },
        )
    figure.add_hline(y=0)
    return figure.update_layout(scattermode="group")


def _plot_margins(document: Document) -> go.Figure:
    figure = go.Figure()
    for role in MODEL_ROLES:
        sides = [pair["preferences"][role] for pair in document["evidence"]["pairs"]]
        margins = [side["chosen_per_token"] - side["rejected_per_token"] for side in sides]
        figure.add_box(y=margins, name=role, marker_color=COLOURS[role], boxpoints="all")
    return figure


def _plot_answers(document: Document) -> go.Figure:
    return _bars(document["summary"]["models"], SHARES)


def _plot_lengths(document: Document) -> go.Figure:
    answers = document["evidence"]["answers"]
    prompts = [answer["prompt_id"] for answer in answers]
    return _grouped(prompts, lambda role: [each["measures"][role]["tokens"] for each in answers])


def _plot_drift(document: Document) -> go.Figure:
    drift = document["evidence"]["drift"]
    prompts = [each["prompt_id"] for each in drift]
    models: tuple[ModelRole, ...] = ("candidate", "incumbent")
    return _grouped(prompts, lambda role: [each["kl"][role] for each in drift], models)


def _bars(models: Document, names: Mapping[str, str]) -> go.Figure:
    return _grouped(list(names.values()), lambda role: [models[role][name] for name in names])


def _grouped(
    x: list[str],
    heights: Callable[[ModelRole], list[Any]],
    roles: tuple[ModelRole, ...] = MODEL_ROLES,
) -> go.Figure:
    """A bar for each place of x and each model."""
    figure = go.Figure()
    for role in roles:
        figure.add_bar(x=x, y=heights(role), name=role, marker_color=COLOURS[role])
    return figure


PLOTS: Mapping[str, Callable[[Document], go.Figure]] = {
    "Preference accuracy": _plot_accuracy,
    "Candidate against the others, with 95% intervals": _plot_differences,
    "Margin of chosen over rejected, nats a token": _plot_margins,
    "Answers to the fixed prompts": _plot_answers,
    "Length of the answers, tokens": _plot_lengths,
    "KL to the base, nats a token": _plot_drift,
}
