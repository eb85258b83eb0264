"""The commands without a group: serve, ask, tune, evaluate, demo, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import Home, Json, finish, opened, running, say

app = typer.Typer(
    name="burnish", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="A private chat assistant that gets better from the people who use it.",
)  # fmt: skip


@app.command()
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Web chat, HTTP API and console. Prints its address when the first answer can be given."""
    from app.serve import serve as run
    from app.settings import load_settings

    settings = load_settings(home=home, host=host, port=port)
    say(as_json, f"Starting; the state is in {settings.home}")
    status = run(settings, lambda url: finish(as_json, {"url": url}, f"Burnish is ready: {url}"))
    raise typer.Exit(status)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    home: Home = None,
    mode: Annotated[str, typer.Option(help="plain, few-shot or cot.")] = "plain",
    adapter: Annotated[str, typer.Option(help="base, live or a release id.")] = "live",
    quant: Annotated[str | None, typer.Option(help="none, int8 or int4.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    samples: Annotated[
        int, typer.Option(min=1, help="In mode cot: think N times, give the majority's answer.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """One answer on the terminal. Nothing is stored."""
    from app.ask import ask as run
    from app.settings import load_settings

    if temperature is None:
        temperature = load_settings(home=home).temperature
    if samples > 1 and mode != "cot":
        raise typer.BadParameter("needs --mode cot", param_hint="--samples")
    if samples > 1 and temperature == 0:
        raise typer.BadParameter("needs a --temperature above 0", param_hint="--samples")
    with running(home, quantization=quant) as service:
        answer = run(
            service, question, mode=mode, adapter=adapter, temperature=temperature,
            max_new_tokens=max_new_tokens, seed=seed, samples=samples,
            show=None if as_json else lambda text: print(text, end="", flush=True),  # noqa: T201
        )  # fmt: skip
    finish(as_json, answer, "")


@app.command()
def tune(
    home: Home = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file; see docs/formats.md.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="A snapshot's id; else one is made.")] = None,
    show: Annotated[int, typer.Option(help="Print N pairs, token by token, and stop.")] = 0,
    as_json: Json = False,
) -> None:
    """Train an adapter on a snapshot; ends with the bundle's id. A killed job is resumed."""
    from app.tune import print_step, show_pairs
    from engine.storage import find_digest

    with opened(home) as workspace:
        values, origins = workspace.recipe(recipe)
        digest = (
            find_digest(workspace.home / "snapshots", snapshot)
            if snapshot
            else workspace.loop.snapshot()
        )
        if show:
            show_pairs(workspace, digest, show)
            return
        base = workspace.base
        job = workspace.jobs.start(
            base_name=base.name, base_digest=base.digest, snapshot=digest, recipe=values,
            recipe_origins=origins,
        )  # fmt: skip
        for event in workspace.jobs.wait(job):
            print_step(event)
        bundle = workspace.jobs.result(job)
    finish(as_json, {"bundle": bundle, "snapshot": digest, "job": job}, bundle)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's id, or its beginning.")],
    home: Home = None,
    against: Annotated[str | None, typer.Option(help="A release's id. [default: live]")] = None,
    snapshot: Annotated[str | None, typer.Option(help="[default: the one trained on]")] = None,
    as_json: Json = False,
) -> None:
    """Judge a bundle on held-out pairs and record it as a release."""
    from engine.storage import find_digest, folder_of, read_manifest

    with running(home) as service:
        workspace = service.workspace
        digest = find_digest(workspace.bundles, bundle)
        chosen = (
            find_digest(workspace.home / "snapshots", snapshot)
            if snapshot
            else str(read_manifest(folder_of(workspace.bundles, digest))["snapshot"])
        )
        other = find_digest(workspace.bundles, against) if against else None
        report = workspace.loop.evaluate(service.engine, service.slots, digest, chosen, other)
    text = (
        f"{report.verdict}: {report.reason}\n"
        f"accuracy {report.incumbent_accuracy:.2f} -> {report.candidate_accuracy:.2f} on"
        f" {report.pairs} pairs; longer wins: {report.longer_wins_accuracy:.2f}"
    )
    finish(as_json, {"bundle": digest, **report.as_dict()}, text)


@app.command()
def demo(
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The whole loop on the embedded model with a scripted user, with before/after figures."""
    from app.demo import run
    from app.settings import load_settings

    settings = load_settings(home=home)
    figures = run(settings, say=lambda text: say(as_json, text))
    finish(as_json, figures, "")


@app.command()
def doctor(home: Home = None, as_json: Json = False) -> None:
    """What this machine can do, what was chosen and why, what is missing."""
    from app.doctor import describe, examine

    with opened(home) as workspace:
        findings = examine(workspace)
    finish(as_json, findings, describe(findings))
    if findings["problems"]:
        raise typer.Exit(1)
