"""Rate limits: of wrong passwords by account and address, of requests by person and key.

The counts are in this process's memory for a few minutes; nothing is stored. Knows numbers alone.
"""

from __future__ import annotations

import math
import time
from ipaddress import ip_network

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from feedback_store.accounts.person import Person

WRONG_A_PAIR = RateLimitItemPerMinute(10)  # of one account from one address
WRONG_AN_ACCOUNT = RateLimitItemPerHour(100)  # from all addresses
WRONG_AN_ADDRESS = RateLimitItemPerMinute(100)  # of all accounts: ten accounts' worth


class LoginThrottle:
    """Counts wrong passwords.

    Guesses at one account are refused after ten from an address and after a hundred from all. They
    count for their address only while they are checked, so that they alone never use up what other
    accounts may try from there (a proxy's address is everybody's).
    """

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def is_blocked(self, name: str, address: str) -> bool:
        """Return whether no password is to be looked at, even the right one."""
        return not all(self._limiter.test(limit, *of) for limit, of in _counted(name, address))

    def count_wrong(self, name: str, address: str) -> None:
        """Count a wrong password."""
        for limit, of in _counted(name, address):
            self._limiter.hit(limit, *of)


class RequestRates:
    """Counts the requests of each person, over all their browsers and keys, and of each key."""

    def __init__(self, a_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(a_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def seconds_to_wait(self, person: Person) -> int:
        """Count a request; returns 0, or after how many seconds the next one is let through."""
        for of in filter(None, (person.key_id, person.id)):
            if not self._limiter.hit(self._limit, of):
                reset = self._limiter.get_window_stats(self._limit, of).reset_time
                return max(1, math.ceil(reset - time.time()))
        return 0


def _counted(name: str, address: str) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
    network = network_of(address)
    return [
        (WRONG_A_PAIR, ("pair", name, network)),
        (WRONG_AN_ACCOUNT, ("account", name)),
        (WRONG_AN_ADDRESS, ("address", network)),
    ]


def network_of(address: str) -> str:
    """Return the unit to limit: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        return str(ip_network(f"{address}/64" if ":" in address else address, strict=False))
    except ValueError:
        return address
