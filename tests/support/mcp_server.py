"""An MCP server to be run in a process of its own: `python mcp_server.py [PORT]`."""

from __future__ import annotations

import os
import sys
import time

from mcp.server import MCPServer

server = MCPServer("test")


@server.tool()  # type: ignore[untyped-decorator, unused-ignore]
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()  # type: ignore[untyped-decorator, unused-ignore]
def process() -> str:
    """Tell the process and what it sees of its environment."""
    return f"{os.getpid()} {os.environ.get('KEY')} {os.environ.get('BURNISH_SECRET')}"


@server.tool()  # type: ignore[untyped-decorator, unused-ignore]
def refuse() -> str:
    """Refuse."""
    raise ValueError("not today")


@server.tool()  # type: ignore[untyped-decorator, unused-ignore]
def hang() -> str:
    """Never answer."""
    time.sleep(600)
    return ""


@server.tool()  # type: ignore[untyped-decorator, unused-ignore]
def die() -> str:
    """End the process in the middle of a call."""
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
