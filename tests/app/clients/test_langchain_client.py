"""LangChain's chat model for OpenAI-compatible servers against the running server."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.app.conftest import Shared


class Weather(BaseModel):
    """The weather of a day."""

    sky: Literal["clear", "grey"]
    windy: bool


@pytest.fixture
def model(shared: Shared) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{shared.url}/v1",
        api_key=SecretStr("none"),
        model="live",
        temperature=0,
        max_retries=0,
    )


def test_a_chain_answers_at_once_in_a_stream_in_batches_and_asynchronously(
    model: ChatOpenAI,
) -> None:
    chain = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")]) | model.bind(
        max_tokens=12
    )
    asked = {"question": "What is the sea?"}
    answer = chain.invoke(asked)
    assert isinstance(answer, AIMessage)
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= 12
    assert "".join(piece.text for piece in chain.stream(asked)) == answer.text
    assert [each.text for each in chain.batch([asked, asked])] == [answer.text] * 2
    assert asyncio.run(chain.ainvoke(asked)).text == answer.text


def test_structured_output_is_of_its_class(model: ChatOpenAI) -> None:
    found = model.with_structured_output(Weather, method="json_schema").invoke(
        [HumanMessage("How is the weather?")]
    )
    assert isinstance(found, Weather)
