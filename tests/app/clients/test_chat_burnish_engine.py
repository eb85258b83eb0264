"""`ChatBurnish` over a real engine, in process and by URL: what masks of tokens hold it to."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel as PydanticModel

from engine.errors import UnknownId
from engine.langchain import ChatBurnish
from engine.models.catalogue import BaseModel
from tests.app.conftest import Shared
from tests.helpers import make_bundle

ROOT = Path(__file__).parents[3]


class Weather(PydanticModel):
    """The weather of a day."""

    sky: Literal["clear", "grey"]
    windy: bool


@tool
def warm_days(city: Literal["Rome", "Oslo"], windy: bool) -> str:
    """Count the warm days of a city."""
    return f"{city}: {windy}"


@pytest.fixture(params=["in process", "by URL"])
def real(request: pytest.FixtureRequest, shared: Shared) -> ChatBurnish:
    """A chat model over the tiny model."""
    if request.param == "in process":
        return ChatBurnish(engine=shared.service.engine, releases=shared.service.slots)
    return ChatBurnish(base_url=shared.url)


def test_a_model_is_live_base_or_a_release(real: ChatBurnish, shared: Shared) -> None:
    workspace = shared.service.workspace
    digest = make_bundle(workspace.home.bundles, workspace.base, seed=3)
    model = real.bind(temperature=0, max_tokens=12)
    base = model.invoke("sea", model="base")
    assert model.invoke("sea").text == base.text  # no release is live
    tuned = model.invoke("sea", model=digest[:20])
    assert tuned.text != base.text
    assert tuned.response_metadata["model_name"] == digest[:20]
    with pytest.raises(UnknownId):
        model.invoke("sea", model="sha256:abcd")


def test_arguments_are_valid_whatever_the_model_would_say(real: ChatBurnish) -> None:
    bound = real.bind_tools([warm_days], tool_choice="warm_days")
    hot: dict[str, Any] = {"temperature": 1.5, "max_tokens": 200, "parallel_tool_calls": False}
    for seed in range(4):
        for answer in (
            bound.invoke("Where?", seed=seed, **hot),
            _sum(bound.stream("Where?", seed=seed, **hot)),
        ):
            (call,) = answer.tool_calls
            assert call["name"] == "warm_days"
            assert warm_days.invoke(call["args"]) in {
                f"{city}: {windy}" for city in ("Rome", "Oslo") for windy in (True, False)
            }


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_answers_are_values_of_a_schema(
    real: ChatBurnish, method: Literal["json_schema", "function_calling"]
) -> None:
    enough: dict[str, Any] = {"method": method, "max_tokens": 200}
    chain = real.with_structured_output(Weather, **enough)
    assert isinstance(chain.invoke("How is it?"), Weather)
    *_, last = chain.stream("How is it?")
    assert isinstance(last, Weather)
    schema = Weather.model_json_schema()
    with_raw = real.with_structured_output(schema, include_raw=True, **enough)
    beside = asyncio.run(with_raw.ainvoke("How is it?"))
    assert isinstance(beside["raw"], AIMessage)
    assert Weather(**beside["parsed"])
    assert beside["parsing_error"] is None


# The document


def examples() -> list[str]:
    document = (ROOT / "docs" / "langchain.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", document, re.M | re.S)


@pytest.mark.parametrize("number", range(4))
def test_the_examples_of_the_document_run(
    number: int,
    shared: Shared,
    tiny_base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("engine.models.catalogue.resolve", lambda _name, _cache: tiny_base)
    assert len(examples()) == 4
    code = examples()[number].replace("http://127.0.0.1:7860", shared.url)
    exec(compile(code, f"example {number}", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out.strip()


def _sum(chunks: Any) -> AIMessageChunk:
    first, *rest = chunks
    whole = first + rest
    assert isinstance(whole, AIMessageChunk)
    return whole
