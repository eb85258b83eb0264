"""The models that are known by name: which fit, which are here, and the fetching of one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import gradio as gr
import psutil
import pytest

from app import model_table as models
from app.model_table import ModelFetch, ModelRow, model_table
from app.settings import Settings, load_settings
from app.ui.model_console import ModelPage
from engine.errors import Conflict, ModelUnavailable, UnknownId
from engine.models.presets import presets
from tests.app.command_line import Cli
from tests.support.waiting import wait_until

NAME = "smollm2-135m-instruct"
ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", model_cache=tmp_path / "models", model=NAME)


def put(cache: Path, hub_id: str, *names: str) -> Path:
    """Files of a model in the cache, as the hub's client lays them out."""
    folder = cache / "hub" / f"models--{hub_id.replace('/', '--')}"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    return folder


def by_name(settings: Settings) -> dict[str, ModelRow]:
    return {row.name: row for row in model_table(settings)}


def test_a_model_is_here_once_all_of_it_is(settings: Settings) -> None:
    hub_id = presets()["qwen2.5-0.5b-instruct"].hub_id
    cache = settings.model_cache
    assert by_name(settings)["qwen2.5-0.5b-instruct"].place == "away"
    put(cache, hub_id, "snapshots/1/config.json", "snapshots/1/model.safetensors")
    half = put(cache, hub_id, "blobs/2.incomplete") / "blobs/2.incomplete"
    assert by_name(settings)["qwen2.5-0.5b-instruct"].place == "away"
    half.unlink()
    assert by_name(settings)["qwen2.5-0.5b-instruct"].place == "here"
    assert by_name(settings)[NAME].place == "served"


def test_a_model_fits_where_half_the_memory_holds_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = by_name(settings)[NAME].weight_bytes["int4"]
    for memory, fits in ((2 * size, False), (2 * size + 1, True)):
        total = SimpleNamespace(total=memory)
        monkeypatch.setattr(psutil, "virtual_memory", lambda total=total: total)
        assert by_name(settings)[NAME].fits is fits


class Hub:
    """A hub that gives half a model, and the rest when it is told."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.asked: list[str] = []
        self.error: ModelUnavailable | None = None

    def fetch(self, hub_id: str, cache: Path) -> Path:
        self.asked.append(hub_id)
        put(cache, hub_id, "blobs/1.incomplete")
        assert self.may_end.wait(timeout=30)
        if self.error is not None:
            raise self.error
        return cache


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(models, "fetch_from_hub", hub.fetch)
    yield hub
    hub.may_end.set()


def test_a_fetch_says_how_far_it_is_until_its_end(settings: Settings, hub: Hub) -> None:
    fetch = ModelFetch(settings)
    assert fetch.progress() is None
    fetch.start(NAME)
    wait_until(lambda: (found := fetch.progress()) is not None and found.fetched_bytes == 100)
    found = fetch.progress()
    assert found is not None
    assert (found.running, found.share) == (True, 100 / found.total_bytes)
    with pytest.raises(Conflict, match="one at a time"):
        fetch.start(NAME)
    hub.may_end.set()
    wait_until(lambda: not cast(models.FetchProgress, fetch.progress()).running)
    assert cast(models.FetchProgress, fetch.progress()).share == 1.0
    assert hub.asked == [presets()[NAME].hub_id]
    with pytest.raises(UnknownId, match="no preset 'llama-99'"):
        fetch.start("llama-99")


def test_the_page_tells_what_is_served_and_why_a_fetch_failed(settings: Settings, hub: Hub) -> None:
    hub.error = ModelUnavailable("cannot fetch it: <b>no network</b>")
    hub.may_end.set()
    page = ModelPage(settings)
    served, table, progress, choices, shown = page.refresh("fitting", "", ENGLISH)
    assert NAME in served
    assert "<dt>smollm2-135m-instruct</dt>" in table
    assert NAME not in choices["choices"]
    assert progress == ""
    assert page.refresh("fitting", shown, ENGLISH)[1] == gr.skip()
    page.fetch(choices["choices"][0], ENGLISH)
    wait_until(lambda: "could not be fetched" in str(page.refresh("fitting", shown, ENGLISH)[2]))
    assert "<b>" not in page.refresh("fitting", shown, ENGLISH)[2]
    with pytest.raises(gr.Error, match="Choose a model first"):
        page.fetch(None, ENGLISH)


def test_the_command_line_lists_models_and_fetches_one(cli: Cli, hub: Hub) -> None:
    listed = cli.json("model", "list")
    assert {row["name"] for row in listed["models"]} == set(presets())
    text, _ = cli("model", "list")
    assert NAME in text
    hub.may_end.set()
    assert cli.json("model", "fetch", NAME) == {"model": NAME}
    hub.error = ModelUnavailable("cannot fetch it: no network")
    _, errors = cli("model", "fetch", NAME, status=1)
    assert errors == "burnish: cannot fetch it: no network\n"
