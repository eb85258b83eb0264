"""The tools of the operator's MCP servers, as each server listed them last.

A server is asked in the background: by whom a list is missing or old, and at most one wait for it
is short. So a server that is down, or starts slowly, delays no answer; its tools are missing then.
Knows servers; knows no people.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.mcp_config import McpServerConfig
from app.tools.mcp_session import McpSession
from engine.errors import BurnishError
from engine.messages import storable_text
from engine.tools import Tool, spaced_json

if TYPE_CHECKING:
    import mcp

FRESH_SECONDS, RETRY_SECONDS = 300.0, 30.0  # until a list, and a failure, is looked at again
MAX_DESCRIPTION_CHARS = 1_024
MAX_SCHEMA_CHARS = 8_192
MAX_TOOLS_OF_A_SERVER = 64
MAX_TOOL_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool of a server: as a function that a model may call, and by the server's own name."""

    server: str
    name: str
    function: Tool


@dataclass(frozen=True, slots=True)
class ServerListing:
    """The tools of a server at a moment (seconds of the monotonic clock), or the error."""

    server: str
    tools: tuple[ServerTool, ...] = ()
    problem: str = ""
    at: float = 0.0

    @property
    def is_due(self) -> bool:
        """Return whether the server is to be asked again."""
        limit = RETRY_SECONDS if self.problem else FRESH_SECONDS
        return time.monotonic() - self.at > limit


class McpServers:
    """The operator's servers. No method takes longer than it is told to wait."""

    def __init__(self, configs: Mapping[str, McpServerConfig], *, timeout_seconds: float) -> None:
        self._configs = configs
        self._timeout_seconds = timeout_seconds
        self._changed = threading.Condition()  # guards the two below
        self._listings: dict[str, ServerListing] = {}
        self._asking: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The servers' names."""
        return tuple(self._configs)

    def listings(self, servers: Iterable[str], *, wait_seconds: float) -> list[ServerListing]:
        """Return what is known of some servers; waits for those of which nothing is known."""
        wanted = [name for name in servers if name in self._configs]
        with self._changed:
            for name in wanted:
                known = self._listings.get(name)
                if name not in self._asking and (known is None or known.is_due):
                    self._asking.add(name)
                    threading.Thread(
                        target=self._list, args=(name,), name="burnish-mcp-list", daemon=True
                    ).start()
            self._changed.wait_for(
                lambda: all(name in self._listings for name in wanted), wait_seconds
            )
            return [
                self._listings.get(name)
                or ServerListing(name, problem=f"the MCP server {name} has not answered yet")
                for name in wanted
            ]

    def session(self, server: str) -> McpSession:
        """Return a session for one answer, without a connection yet."""
        return McpSession(server, self._configs[server], timeout_seconds=self._timeout_seconds)

    def _list(self, server: str) -> None:
        session = self.session(server)
        listing = ServerListing(
            server, problem=f"the MCP server {server} failed: its tools are unreadable"
        )
        try:
            listing = ServerListing(server, _server_tools(server, session.tools()))
        except BurnishError as error:
            listing = ServerListing(server, problem=str(error))
        finally:
            session.close()
            with self._changed:
                tools, problem = listing.tools, listing.problem
                self._listings[server] = ServerListing(server, tools, problem, time.monotonic())
                self._asking.remove(server)
                self._changed.notify_all()


def _server_tools(server: str, listed: Iterable[mcp.Tool]) -> tuple[ServerTool, ...]:
    """The tools as functions; left out is what no function can be, or what is far too long."""
    found: dict[str, ServerTool] = {}
    for tool in listed:
        schema = spaced_json(tool.input_schema)
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool.name)
        name = f"{server}__{plain}"[:MAX_TOOL_NAME_CHARS]
        if tool.input_schema.get("type") != "object" or len(schema) > MAX_SCHEMA_CHARS:
            continue
        described = storable_text(tool.description or tool.title or "")[:MAX_DESCRIPTION_CHARS]
        function = Tool(name, described, storable_text(schema))
        found.setdefault(name, ServerTool(server, tool.name, function))
    return tuple(found.values())[:MAX_TOOLS_OF_A_SERVER]
