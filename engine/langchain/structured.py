"""Answers as values of a schema, in three ways.

    json_schema        the answer is JSON of the schema, by the engine's grammar
    function_calling   the answer is a call of a function with the schema as its arguments
    json_mode          the answer is any JSON object; the prompt must ask for the right one

The first two are valid by construction, unless the answer is cut at `max_tokens`. The model is not
shown the schema in the first, but is in the second.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_function, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from engine.errors import InvalidInput

Schema = dict[str, Any] | type
StructuredMethod = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    model: BaseChatModel,
    schema: Schema,
    *,
    method: StructuredMethod,
    strict: bool | None,
    include_raw: bool,
    **options: Any,
) -> Runnable[LanguageModelInput, Any]:
    """The model, and behind it the parser of its answers.

    Values are of a pydantic class, or dicts for other schemas. As in OpenAI's API, an object has
    all the properties of its schema and no others, unless `strict` is False. With `include_raw`,
    the value stands beside the message and its parsing error.
    """
    if method not in get_args(StructuredMethod):
        raise InvalidInput(f"method must be one of {', '.join(get_args(StructuredMethod))}")
    asked = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    options = {"ls_structured_output_format": asked, **options}
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        tool = convert_to_openai_tool(schema, strict=True if strict is None else strict)
        name = tool["function"]["name"]
        asking = model.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **options)
        parser: OutputParserLike[Any] = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        asking = model.bind(response_format=_response_format(schema, method, strict), **options)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    return _beside_raw(asking, parser) if include_raw else asking | parser


def _response_format(schema: Schema, method: str, strict: bool | None) -> dict[str, Any]:
    if method == "json_mode":
        return {"type": "json_object"}
    function = convert_to_openai_function(schema, strict=True if strict is None else strict)
    named = {"name": function["name"], "schema": function["parameters"]}
    return {"type": "json_schema", "json_schema": named}


def _beside_raw(
    asking: Runnable[LanguageModelInput, Any], parser: OutputParserLike[Any]
) -> Runnable[LanguageModelInput, Any]:
    """The message as `raw`, its value as `parsed`, or None and the reason as `parsing_error`."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=asking) | parsed.with_fallbacks([failed], exception_key="parsing_error")
