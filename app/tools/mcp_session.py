"""A connection to an MCP server for one answer: made at its first call, closed at its end.

The connection lives on an event loop in a thread of its own. A caller waits in its own thread for
at most its limit; a server that hangs, or whose process dies, ends the call with a sentence, and
the next call begins with a new connection. Answers share no connection, so that nothing which one
person's call leaves in a server's process is there for another's. Knows the package mcp.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.mcp_config import McpServerConfig
from engine.errors import InvalidInput, PeerUnavailable
from engine.tools import spaced_json

if TYPE_CHECKING:
    import mcp
    from mcp.types import CallToolResult

T = TypeVar("T")
SILENT = logging.CRITICAL + 1  # the package logs messages that it cannot read, word for word
MAX_PAGES = 20  # of a list of tools


class McpSession:
    """The calls of one answer to one server, one after the other; then `close`.

    A call that its caller has given up may still be running: the next one waits for it, within its
    own limit, and `close` ends it.
    """

    def __init__(self, name: str, config: McpServerConfig, *, timeout_seconds: float) -> None:
        self._name = name
        self._config = config
        self._timeout_seconds = timeout_seconds
        self._one_at_a_time = threading.Lock()
        self._lock = threading.Lock()  # guards the ones below
        self._is_closed = False
        self._portal: BlockingPortal | None = None
        self._open = ExitStack()  # the portal
        self._holder: Future[None] | None = None  # the task that holds the connection
        self._client: Future[mcp.Client] = Future()

    def tools(self) -> list[mcp.Tool]:
        """List the server's tools; raises `PeerUnavailable`."""
        found: list[mcp.Tool] = self._ask(_all_tools)
        return found

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool and return what it says.

        Raises `InvalidInput` where the tool says that it failed, and `PeerUnavailable` where the
        server does.
        """
        result: CallToolResult = self._ask(lambda client: client.call_tool(tool, arguments))
        text = _text_of(result)
        if result.is_error:
            raise InvalidInput(text or "the tool failed")
        return text

    def close(self) -> None:
        """End the connection and the server's process, without waiting for it."""
        self._disconnect()
        with self._lock:
            self._is_closed = True
            was_open, self._portal = self._portal is not None, None
        if was_open:
            threading.Thread(target=self._open.close, name="burnish-mcp-close", daemon=True).start()

    def _ask(self, request: Callable[[mcp.Client], Any]) -> Any:
        try:
            from mcp import MCPError
        except ImportError:
            raise InvalidInput("an MCP server needs `pip install burnish[mcp]`") from None
        try:
            with self._one_at_a_time:
                ends_at = time.monotonic() + self._timeout_seconds
                portal, connecting = self._connected()
                client = connecting.result(ends_at - time.monotonic())
                answered = portal.start_task_soon(_awaited, request, client)
                return answered.result(ends_at - time.monotonic())
        except TimeoutError:
            seconds = f"{self._timeout_seconds:g}"
            problem = f"the MCP server {self._name} did not answer within {seconds} s"
        except MCPError as error:
            problem = f"the MCP server {self._name} answered with an error: {error}"
        except (Exception, CancelledError) as error:  # noqa: BLE001 - whatever a server can cause
            problem = f"the MCP server {self._name} failed: {_cause_of(error)}"
        self._disconnect()
        raise PeerUnavailable(problem)

    def _connected(self) -> tuple[BlockingPortal, Future[mcp.Client]]:
        """The event loop and the connection, which is made where there is none."""
        with self._lock:
            if self._is_closed:
                raise CancelledError
            if self._portal is None:
                self._portal = self._open.enter_context(start_blocking_portal())
            if self._holder is None:
                self._client = Future()
                self._holder = self._portal.start_task_soon(self._hold, self._client)
            return self._portal, self._client

    def _disconnect(self) -> None:
        with self._lock:
            holder, self._holder = self._holder, None
        if holder is not None:
            holder.cancel()

    async def _hold(self, client: Future[mcp.Client]) -> None:
        """Connect, and keep the connection until the task is cancelled."""
        try:
            async with AsyncExitStack() as stack:
                connection = await self._client_of(stack)
                client.set_result(await stack.enter_async_context(connection))
                await anyio.sleep_forever()
        except BaseException as error:
            if not client.done():
                client.set_exception(error)
            raise

    async def _client_of(self, stack: AsyncExitStack) -> mcp.Client:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client

        logging.getLogger("mcp").setLevel(SILENT)
        config, limit = self._config, self._timeout_seconds
        if config.command is not None:
            process = StdioServerParameters(
                command=config.command,
                args=list(config.args),
                env={name: value.get_secret_value() for name, value in config.env.items()},
                cwd=config.cwd,
            )
            # What a server prints may quote what people wrote
            silent = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123, SIM115
            return Client(stdio_client(process, errlog=silent), read_timeout_seconds=limit)
        import httpx2

        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=limit))
        assert config.url is not None
        transport = streamable_http_client(config.url, http_client=http)
        return Client(transport, read_timeout_seconds=limit)


async def _awaited(request: Callable[[mcp.Client], Any], client: mcp.Client) -> Any:
    return await request(client)


async def _all_tools(client: mcp.Client) -> list[mcp.Tool]:
    found: list[mcp.Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def _text_of(result: CallToolResult) -> str:
    """The texts of a result; of what is no text, the kind. A result may be JSON alone."""
    parts = [part.text if part.type == "text" else f"[{part.type}]" for part in result.content]
    if not parts and result.structured_content is not None:
        return spaced_json(result.structured_content)
    return "\n".join(parts)


def _cause_of(error: BaseException) -> str:
    """The kind of the first error in a group of them; its text may quote what people wrote."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        return "there is no such command"
    return type(error).__name__
