"""A proxy whose connections can be cut and restored."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Cable:
    """Forwards data between `url` and a server, both ways, while it is plugged in."""

    def __init__(self, server: str) -> None:
        address = urlsplit(server)
        self._server = (str(address.hostname), int(address.port or 80))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()  # guards the one above
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def pull(self) -> None:
        """Cut what is connected, and refuse what comes."""
        self._close(self._listener)
        with self._lock:
            ended, self._open = self._open, []
        for each in ended:
            self._close(each)

    def plug_in(self) -> None:
        """Take connections again, at the same address."""
        self._listener = self._listen(self._port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._server)
                with self._lock:
                    self._open += [near, far]
                for each in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=each, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        self._close(target)

    @staticmethod
    def _close(end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        end.close()


@contextmanager
def cable_to(server: str) -> Iterator[Cable]:
    """A cable that is plugged in."""
    cable = Cable(server)
    yield cable
    cable.pull()
