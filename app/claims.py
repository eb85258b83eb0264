"""Exclusive use of a home folder (a file lock) and of a port (listening sockets) by a server.

The server claims both before it imports or loads anything slow, so that a second server is refused
at once and changes nothing. Other commands claim neither.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from app.settings import Settings
from engine.errors import Conflict, InvalidInput
from engine.file_lock import file_lock
from engine.home import Home
from engine.private_files import open_private_folder

BACKLOG = 2048  # connections that wait to be accepted; uvicorn's default

_log = logging.getLogger(__name__)


def open_home(home: Home) -> None:
    """Create the home, or make an older one private and log that."""
    marks = (home.examples.name, home.database.name)  # every home has at least one of them
    if (notice := open_private_folder(home.root, marks=marks)) is not None:
        _log.warning("%s", notice)


@contextmanager
def claim_server(settings: Settings) -> Iterator[list[socket.socket]]:
    """Lock the home and yield the server's listening sockets until the block ends.

    Connections made before the server accepts them wait in the backlog. Servers that use
    PostgreSQL may share a home, which is then not locked.

    Raises:
        Conflict: another process holds the home or the port.
        InvalidInput: the address does not belong to this machine.
    """
    home = Home(settings.home)
    open_home(home)
    with ExitStack() as claims:
        if not shares_store(settings):
            claims.enter_context(_sole_server_of(home))
        sockets = listen(settings.host, settings.port)
        for listener in sockets:
            claims.callback(listener.close)
        yield sockets


def shares_store(settings: Settings) -> bool:
    """Return whether other servers may use the same database: a SQLite file has one server."""
    return settings.database_url is not None and not settings.database_url.startswith("sqlite")


@contextmanager
def _sole_server_of(home: Home) -> Iterator[None]:
    """Lock the home; the operating system releases the lock when the process ends."""

    def busy() -> str:
        holder = home.server_lock.read_text("ascii", errors="replace")
        return (
            f"another server (process {holder or 'unknown'}) is running on {home.root};"
            " stop it, or give this one another home with --home"
        )

    with file_lock(home.server_lock, busy) as descriptor:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield


def _listener(address: Any, family: int) -> socket.socket:
    """Return a listening socket whose connections send each word at once.

    asyncio asks for that (TCP_NODELAY) only where the socket names its protocol, which Python's do
    not. Without it a word waits for the acknowledgement of the one before, 40 ms on Linux.
    """
    listener = socket.create_server(address, family=family, backlog=BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    return listener


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of the host, all on one port; 0 is any free port.

    Raises `Conflict` for a port in use, and `InvalidInput` for an address of another machine.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            one_port = sockets[0].getsockname()[1] if sockets else port
            at: Any = (address[0], one_port, *address[2:])
            try:
                sockets.append(_listener(at, family))
            except OSError as error:
                # A name may have an IPv6 address although IPv6 is switched off
                if error.errno != errno.EADDRNOTAVAIL or len(found) == 1:
                    raise
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "none of its addresses is this machine's")
    except OSError as error:
        for listener in sockets:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is in use by another program;"
                " stop it, or choose another port with --port (0 takes a free one)"
            ) from None
        reason = error.strerror or str(error)
        raise InvalidInput(f"cannot listen on port {port} of {host}: {reason}") from None
    return sockets
