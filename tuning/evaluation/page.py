"""An evaluation as one page with plots. It holds all it needs and asks no other server.

Knows the document in `evaluation.json`; computes nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tuning.evaluation.rewards import DRAWN
from tuning.evaluation.roles import MODEL_ROLES, ModelRole

COLOURS = {"candidate": "#c2571a", "incumbent": "#3b6ea5", "base": "#9a9a9a"}
# Measures on pairs, as the plots name them
MEASURES = {
    "reward_accuracy_per_token": "reward per token",
    "reward_accuracy": "reward, summed",
    "accuracy": "likelihood per token",
    "accuracy_summed": "likelihood, summed",
    "margin_per_token": "margin, nats a token",
    "chosen_logprob_per_token": "preferred, nats a token",
}
SHARES = {
    "finished": "finished",
    "empty": "empty",
    "repetition": "repeated phrases",
    "refused": "refused",
    "language_kept": "language kept",
    "format_kept": "form kept",
    "thoughts_parsed": "thoughts parsed",
}
# The figures in words, in the order of the table
FIGURES = {
    "reward_accuracy_per_token": "Share of pairs whose preferred answer gained more, per token:"
    " the gate's measure",
    "reward_accuracy": "The same, of whole answers",
    "accuracy": "Share of pairs whose preferred answer is likelier, per token",
    "accuracy_summed": "The same, of whole answers, which favours short ones",
    "margin_per_token": "By how much it is likelier, nats a token",
    "chosen_logprob_per_token": "Log-probability of preferred answers, nats a token",
    "kl_to_base_per_token": "Distance from the base model (KL), nats a token",
    "perplexity": "Perplexity on other text; lower is better",
    "median_answer_tokens": "Median length of the answers to fixed prompts, tokens",
    "length_ratio_to_incumbent": "Their length beside the live release's",
    "finished": "Share of them that came to an end",
    "empty": "Share that is empty",
    "repetition": "Share of four-word phrases that repeat",
    "refused": "Share that refuses",
    "language_kept": "Share in the question's language",
    "format_kept": "Share in the form that was asked for",
    "thoughts_parsed": "Share whose thought can be told from the answer",
    "reward_greedy": "Reward model's score of greedy answers",
    "reward_drawn": "The same, of drawn answers",
    f"reward_best_of_{DRAWN}": f"The same, of the best of {DRAWN}",
}
# Texts in the plots have the page's colour, in the light and in the dark
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "h1::first-letter{text-transform:uppercase}h2{margin-top:2.5rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #8884}"
    "td:first-child,th:first-child{text-align:left;padding-left:0}"
    "code{overflow-wrap:anywhere}"
    "@media(max-width:40rem){body{font-size:15px}td,th{padding:.3rem .3rem}}"
    ".js-plotly-plot text{fill:currentColor!important}"
)
LAYOUT = {
    "template": "none",
    "height": 340,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 45, "r": 10, "t": 40, "b": 20},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "xaxis": {"automargin": True, "gridcolor": "#8884"},
    "yaxis": {"gridcolor": "#8884", "zerolinecolor": "#8888"},
}
Document = Mapping[str, Any]


def render_page(document: Document) -> str:
    """The page's HTML."""
    verdict = document["verdict"]
    plots = "\n".join(
        f"<h2>{title}</h2>\n"
        + make(document)
        .update_layout(LAYOUT)
        .to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{number}",
            config={"responsive": True, "displayModeBar": False},
        )
        for number, (title, make) in enumerate(PLOTS.items())
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation: {escape(verdict['verdict'])}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>\n"
        f"<h1>{escape(verdict['verdict'])}</h1><p>{escape(verdict['reason'])}</p>\n"
        f"{_figures(document)}{_guards(verdict)}{plots}\n{_names(document)}</body></html>\n"
    )


def _names(document: Document) -> str:
    rows = ((name, document[name]) for name in (*MODEL_ROLES, "snapshot"))
    lines = "<br>".join(f"{name}: <code>{escape(str(digest))}</code>" for name, digest in rows)
    return f"<h2>Models and snapshot</h2><p>{lines}</p>\n"


def _figures(document: Document) -> str:
    models = document["summary"]["models"]
    rows = [
        [words, *(_number(models[role][name]) for role in MODEL_ROLES)]
        for name, words in FIGURES.items()
        if any(models[role].get(name) is not None for role in MODEL_ROLES)
    ]
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
    return f'<h2>{title}</h2><div class="wide"><table>{"".join(lines)}</table></div>\n'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plot_accuracy(document: Document) -> go.Figure:
    models = document["summary"]["models"]
    accuracies = {name: words for name, words in MEASURES.items() if "accuracy" in name}
    figure = _bars(models, accuracies)
    if (longer := document["summary"]["longer_wins_accuracy"]) is not None:
        figure.add_hline(y=longer, line_dash="dot", annotation_text="longer wins")
    return figure


def _plot_differences(document: Document) -> go.Figure:
    """The candidate's differences with their intervals."""
    figure = go.Figure()
    for other, differences in document["summary"]["differences"].items():
        estimates = [d["estimate"] for d in differences.values()]
        figure.add_scatter(
            x=[MEASURES[name] for name in differences],
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
