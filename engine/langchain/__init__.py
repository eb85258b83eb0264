"""A chat model for LangChain: `ChatBurnish`, over an engine in this process or a server by URL.

In process it is the only chat model of LangChain for this engine. By URL, `langchain-openai`'s
`ChatOpenAI` works against `/v1`, too, and is right where a program changes between providers.
`ChatBurnish` is right where it stays here: it has the thought of an answer
(`additional_kwargs["reasoning_content"]`), the answer's id to vote on, deadlines, the options that
OpenAI's API lacks, and errors of `engine.errors`.

    chat_model.py      ChatBurnish: what LangChain calls
    options.py         the options of one call, by the names of OpenAI's and vLLM's APIs
    prompts.py         the chat's prompt modes as prompt templates, and their examples
    messages.py        LangChain's messages in OpenAI's format, and whole answers from chunks
    in_process.py      an engine as the source of chunks
    over_http.py       a server as the source of chunks
    interface.py       what such a source is

The product's server imports this package for answers that call tools (`app.tools.agent`), and for
nothing else.
"""

from engine.langchain.chat_model import ChatBurnish
from engine.langchain.prompts import ModeExamples, mode_prompt

__all__ = ["ChatBurnish", "ModeExamples", "mode_prompt"]
