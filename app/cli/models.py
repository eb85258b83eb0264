"""`burnish model`: the models that are known by name, and the fetching of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import HomeOption, Json, print_result, show_progress
from engine.units import gib

if TYPE_CHECKING:
    from app.model_table import ModelRow

FETCH_POLL_SECONDS = 0.5
PLACE_WORDS = {"served": "served", "here": "here", "away": "to be fetched"}
model_app = typer.Typer(no_args_is_help=True, help="The models that are known by name.")


@model_app.command("list")
def list_models(home: HomeOption = None, as_json: Json = False) -> None:
    """List the models that are known by name: which fit, which are here, which is served."""
    from dataclasses import asdict

    from app.model_table import model_table
    from app.settings import load_settings

    settings = load_settings(home=home)
    rows = model_table(settings)
    lines = [f"served: {settings.model}, weights as {settings.quantization}"]
    lines += [_line(row) for row in rows]
    document = {
        "served": settings.model,
        "quantization": settings.quantization,
        "models": [asdict(row) for row in rows],
    }
    print_result(as_json, document, "\n".join(lines))


@model_app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A model's name, as `burnish model list` has it.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Fetch a model from the hub, so that `burnish serve --model NAME` starts at once."""
    from app.model_table import ModelFetch
    from app.settings import load_settings
    from engine.errors import ModelUnavailable

    fetch = ModelFetch(load_settings(home=home))
    fetch.start(name)
    with show_progress(f"Fetching {name}", as_json=as_json) as say:
        while (progress := fetch.progress()) is not None and progress.running:
            say(f"Fetching {progress.name}: {progress.share:.0%}")
            time.sleep(FETCH_POLL_SECONDS)
    if progress is not None and progress.error is not None:
        raise ModelUnavailable(progress.error)
    print_result(as_json, {"model": name}, f"{name} is here: burnish serve --model {name}")


def _line(row: ModelRow) -> str:
    size = gib(row.weight_bytes["int4"])
    fits = "fits" if row.fits else "too large"
    return f"{row.name:<28}  {size:>8} as int4  {fits:<9}  {PLACE_WORDS[row.place]}"
