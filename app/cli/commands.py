"""The commands without a group: serve, ask, tune, evaluate, demo, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import (
    HomeOption,
    Json,
    Model,
    open_service,
    open_workspace,
    print_note,
    print_result,
    show_progress,
)
from app.cli.evaluation import evaluate_bundle
from app.cli.tune_worker import tune_worker
from app.cli.tuning import tune
from app.demo import EvidenceName

app = typer.Typer(
    name="burnish",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A private chat assistant that gets better from the people who use it.",
)


@app.command()
def serve(
    home: HomeOption = None,
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Run the web chat, the HTTP API and the console; prints the address once they are ready."""
    from app.claims import claim_server
    from app.settings import load_settings

    # Loaded before any library that reads the environment is imported
    settings = load_settings(home=home, model=model, host=host, port=port)
    with claim_server(settings) as sockets:
        print_note(as_json, f"Starting; the state is in {settings.home}")
        from app.serve import run_server  # takes seconds

        run_server(settings, sockets, lambda url, link: print_result(as_json, *_ready(url, link)))


def _ready(url: str, operator_link: str | None) -> tuple[dict[str, str], str]:
    """Return what is printed of a server that is ready, as a document and as text."""
    document, text = {"url": url}, f"Burnish is ready: {url}"
    if operator_link:
        document["operator_link"] = operator_link
        text += f"\nThe first operator joins by this link, once: {operator_link}"
    return document, text


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    home: HomeOption = None,
    mode: Annotated[
        str, typer.Option(help="plain, few-shot, cot, few-shot-cot or self-consistency.")
    ] = "plain",
    adapter: Annotated[str, typer.Option(help="base, live or a release id.")] = "live",
    quant: Annotated[str | None, typer.Option(help="none, int8 or int4.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    samples: Annotated[
        int | None,
        typer.Option(
            min=2, max=16, help="In mode self-consistency: how many chains of thought vote (5)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer one question on the terminal. Nothing is stored."""
    from app.ask import answer_question
    from app.settings import load_settings

    if temperature is None:
        temperature = load_settings(home=home).temperature
    if samples is not None and mode != "self-consistency":
        raise typer.BadParameter("needs --mode self-consistency", param_hint="--samples")
    if mode == "self-consistency" and temperature == 0:
        raise typer.BadParameter("needs a --temperature above 0", param_hint="--mode")
    with (
        open_service(home, as_json=as_json, quantization=quant) as service,
        show_progress("Answering", as_json=as_json) as say,
    ):

        def show(text: str) -> None:
            say("")  # the answer takes the line's place
            print(text, end="", flush=True)  # noqa: T201

        answer = answer_question(
            service,
            question,
            mode=mode,
            adapter=adapter,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            samples=samples,
            show=None if as_json else show,
        )
    print_result(as_json, answer, "")


app.command()(tune)


app.command("tune-worker")(tune_worker)


app.command("evaluate")(evaluate_bundle)


@app.command()
def demo(
    evidence: Annotated[
        EvidenceName, typer.Option(help="What the user gives: corrections too, or thumbs alone.")
    ] = "mixed",
    rounds: Annotated[
        int, typer.Option(help="Repeat the loop on fresh prompts; the wish changes in round 4.")
    ] = 1,
    reversed_share: Annotated[
        float, typer.Option("--reversed", help="The share of votes that are the wrong way round.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampled answers and of the recipe.")] = 0,
    opposed: Annotated[
        bool, typer.Option(help="Two users with opposite wishes compare answers.")
    ] = False,
    other_prompts: Annotated[
        Path | None, typer.Option(help="A file that import reads: its questions are compared too.")
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Run the whole loop on the embedded model with a scripted user; prints its figures."""
    from app.settings import load_settings

    settings = load_settings(home=home)  # before any library reads the environment
    from app.demo.opposed import run_opposed
    from app.demo.run import OTHER_PROMPTS, prompts_of_file, run_demo, run_rounds

    def say(text: str) -> None:
        print_note(as_json, text)

    if rounds > 1 and (reversed_share or opposed or seed or other_prompts):
        raise typer.BadParameter("--rounds goes with --evidence alone")
    if opposed and (reversed_share or other_prompts or evidence != "mixed"):
        raise typer.BadParameter("--opposed goes with --seed alone")
    if opposed:
        figures = run_opposed(settings, say, seed=seed)
    elif rounds > 1:
        figures = run_rounds(settings, say, rounds, evidence)
    else:
        others = prompts_of_file(other_prompts, OTHER_PROMPTS) if other_prompts else ()
        figures = run_demo(
            settings, say, evidence, others, reversed_share=reversed_share, seed=seed
        )
    print_result(as_json, figures, "")


@app.command()
def doctor(home: HomeOption = None, model: Model = None, as_json: Json = False) -> None:
    """Report what this machine can do, what was chosen and why, what is missing, and whether a
    model can be served."""
    from app.doctor import describe, inspect_machine

    with (
        show_progress("Opening the home", as_json=as_json) as say,
        open_workspace(home, model=model) as workspace,
    ):
        findings = inspect_machine(workspace, say)
    print_result(as_json, findings, describe(findings))
    if findings["problems"]:
        raise typer.Exit(1)
