"""Proxies in front of the server whose headers are believed, and no other's.

Knows addresses and headers; what a header says of a person is the caller's to use.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope


class TrustedProxies:
    """The networks of the proxies, and the header in which they say who signed in there."""

    def __init__(self, networks: Collection[str], user_header: str | None) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]
        self._user_header = user_header

    def user_of(self, scope: Scope) -> str | None:
        """Return the name that a proxy vouches for; None if it does not, or is no proxy of ours."""
        if self._user_header is None or not self._is_trusted(_peer_of(scope)):
            return None
        names = Headers(scope=scope).getlist(self._user_header)
        return names[0].strip() or None if len(names) == 1 else None

    def client_of(self, scope: Scope) -> str:
        """Return the client's address: the last one in X-Forwarded-For that is no proxy of ours."""
        path = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        hops = [*filter(None, map(str.strip, path.split(","))), _peer_of(scope)]
        while len(hops) > 1 and self._is_trusted(hops[-1]):
            hops.pop()
        return hops[-1]

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def _peer_of(scope: Scope) -> str:
    """Return the address of who opened the connection."""
    client = scope.get("client")
    return str(client[0]) if client else ""
