"""The tools that are on, and those of them that one person's answer is offered.

The operator's settings switch tools on for everybody; then each person allows them one by one. An
offered tool is made for one answer: it knows whose documents it may search, and its sessions with
MCP servers end with the answer. Knows settings and consents; knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.tools.calculator import calculator
from app.tools.clock import clock, zone_named
from app.tools.document_search import search_own_documents
from app.tools.mcp_servers import MAX_TOOL_NAME_CHARS, McpServers, ServerListing, ServerTool
from app.tools.mcp_session import McpSession
from app.tools.running import RunTool, ToolLimits
from engine.errors import UnknownId
from engine.messages import clean_text
from engine.openai_tools import read_tools
from engine.storage import digest_json
from engine.tools import Tool
from feedback_store.documents.library import Library
from feedback_store.personal.tool_consents import ToolConsents
from feedback_store.storage.database import Database

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from app.settings import Settings

LISTING_SECONDS = 2.0  # that a question waits for a server of which nothing is known yet
SERVER_SEPARATOR = "__"  # between a server's name and its tool's


@dataclass(frozen=True, slots=True)
class Caller:
    """The person whose answer calls, and the time zone of their browser (None: this machine's)."""

    user_id: str
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class KnownTool:
    """A tool that is on. `server` is the MCP server's name; "" is Burnish itself."""

    function: Tool
    server: str = ""

    @property
    def digest(self) -> str:
        """The digest of what the tool says of itself, which is what people allow."""
        return digest_json(self.function.as_row())


@dataclass(frozen=True)
class ToolOffer:
    """The tools of one answer, and their limits. `close` must be called at the answer's end.

    `functions` are what the model is shown of them; `calls` runs each, by its name.
    """

    functions: tuple[Tool, ...]
    calls: Mapping[str, RunTool]
    limits: ToolLimits
    _sessions: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """End the sessions with MCP servers."""
        self._sessions.close()


def open_toolbox(settings: Settings, database: Database, library: Library) -> Toolbox:
    """Return the tools that the settings switch on; no server is asked yet."""
    limits = ToolLimits(
        settings.tool_max_steps, settings.tool_timeout_seconds, settings.tool_max_result_chars
    )
    servers = McpServers(settings.mcp_servers, timeout_seconds=limits.timeout_seconds)
    return Toolbox(settings.tools, servers, library, ToolConsents(database), limits)


class Toolbox:
    """All tools that are on."""

    def __init__(
        self,
        built_in: Collection[str],
        servers: McpServers,
        library: Library,
        consents: ToolConsents,
        limits: ToolLimits,
    ) -> None:
        self._built_in = tuple(built_in)
        self._servers = servers
        self._library = library
        self._consents = consents
        self.limits = limits

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is on."""
        return not (self._built_in or self._servers.names)

    def known(self, *, wait_seconds: float) -> tuple[list[KnownTool], list[str]]:
        """Return the tools that are on, and a sentence for each server that does not answer."""
        listings = self._servers.listings(self._servers.names, wait_seconds=wait_seconds)
        listed = [KnownTool(tool.function, tool.server) for each in listings for tool in each.tools]
        return [*self._own_tools.values(), *listed], _problems(listings)

    def allowed(self, user_id: str) -> set[tuple[str, str]]:
        """Return the (name, digest) of the tools that a person allows."""
        return set(self._consents.of(user_id).items())

    def allow(self, user_id: str, name: str, allowed: bool) -> None:
        """Let a person's answers call a tool, or no longer. Raises `UnknownId` where it is off."""
        clean_text(name, what="name", limit_chars=MAX_TOOL_NAME_CHARS)
        if not allowed:
            self._consents.refuse(user_id, name)
            return
        found, _ = self.known(wait_seconds=self.limits.timeout_seconds)
        tool = next((each for each in found if each.function.name == name), None)
        if tool is None:
            raise UnknownId(f"no tool {name!r} is on")
        self._consents.allow(user_id, name, tool.digest)

    def offer(self, caller: Caller) -> tuple[ToolOffer | None, str]:
        """Return what a person's answer may call, None where that is nothing; and a sentence where
        a server whose tools they allow does not answer."""
        allowed = self.allowed(caller.user_id) if not self.is_empty else set()
        if not allowed:
            return None, ""
        wanted = {name.partition(SERVER_SEPARATOR)[0] for name, _ in allowed}
        listings = self._servers.listings(sorted(wanted), wait_seconds=LISTING_SECONDS)
        own = [
            self._make(name, caller)
            for name, tool in self._own_tools.items()
            if (name, tool.digest) in allowed
        ]
        listed = [
            tool
            for each in listings
            for tool in each.tools
            if (tool.function.name, KnownTool(tool.function).digest) in allowed
        ]
        offer = self._offer_of(own, listed) if own or listed else None
        return offer, "\n".join(_problems(listings))

    def of_everything(self, caller: Caller) -> ToolOffer:
        """Return every tool that is on, whoever allows it: for the operator's terminal."""
        seconds = self.limits.timeout_seconds
        listings = self._servers.listings(self._servers.names, wait_seconds=seconds)
        own = [self._make(name, caller) for name in self._built_in]
        return self._offer_of(own, [tool for each in listings for tool in each.tools])

    def _offer_of(self, own: Sequence[BaseTool], listed: Iterable[ServerTool]) -> ToolOffer:
        functions = [_function_of(tool) for tool in own]
        calls: dict[str, RunTool] = {tool.name: tool.invoke for tool in own}
        sessions = ExitStack()
        session_of: dict[str, McpSession] = {}
        for tool in listed:
            if tool.server not in session_of:
                session_of[tool.server] = self._servers.session(tool.server)
                sessions.callback(session_of[tool.server].close)
            functions.append(tool.function)
            calls[tool.function.name] = partial(session_of[tool.server].call, tool.name)
        return ToolOffer(tuple(functions), calls, self.limits, sessions)

    @cached_property
    def _own_tools(self) -> Mapping[str, KnownTool]:
        """The built-in tools that are on."""
        return {tool.function.name: tool for tool in built_in_tools(self._built_in)}

    def _make(self, name: str, caller: Caller) -> BaseTool:
        return BUILT_IN[name](self._library, caller)


def built_in_tools(names: Iterable[str] | None = None) -> list[KnownTool]:
    """Return Burnish's own tools, or some; they say the same of themselves to everybody."""
    nobody, nothing = Caller(""), Library(Path())  # which they only look at when they are called
    made = (BUILT_IN[name](nothing, nobody) for name in (BUILT_IN if names is None else names))
    return [KnownTool(_function_of(tool)) for tool in made]


def _calculator(_library: Library, _caller: Caller) -> BaseTool:
    from langchain_core.tools import StructuredTool

    return StructuredTool.from_function(calculator)


def _clock(_library: Library, caller: Caller) -> BaseTool:
    from langchain_core.tools import StructuredTool

    def now(time_zone: str = "") -> str:
        """Tell the date and time: here or, with time_zone, elsewhere (such as Europe/Berlin)."""
        return clock(zone_named(time_zone) if time_zone else caller.zone)

    return StructuredTool.from_function(now, name="clock")


def _documents(library: Library, caller: Caller) -> BaseTool:
    from langchain_core.tools import StructuredTool

    def search(question: str) -> str:
        """Search the person's documents for passages that answer a question."""
        return search_own_documents(library, caller.user_id, question)

    return StructuredTool.from_function(search, name="documents")


BUILT_IN: Mapping[str, Callable[[Library, Caller], BaseTool]] = {
    "calculator": _calculator,
    "clock": _clock,
    "documents": _documents,
}


def _function_of(tool: BaseTool) -> Tool:
    from langchain_core.utils.function_calling import convert_to_openai_tool

    (function,) = read_tools([convert_to_openai_tool(tool)])
    return function


def _problems(listings: Iterable[ServerListing]) -> list[str]:
    return [each.problem for each in listings if each.problem]
