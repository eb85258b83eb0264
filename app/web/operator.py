"""Access to the console: HTTP Basic with the operator's password, or open if none is set."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from ipaddress import ip_network

from fastapi import HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.settings import Settings

WRONG_PASSWORDS = RateLimitItemPerMinute(10)  # per address


def operator_check(settings: Settings) -> Callable[[Request], str | None]:
    """Return the check of requests to the console, in gradio's form.

    After too many wrong passwords from an address, even the right one is refused for a minute, so
    that guessing takes years. Addresses are kept only in memory, and only for that minute.
    """
    basic = HTTPBasic(auto_error=False)
    limiter = MovingWindowRateLimiter(MemoryStorage())

    async def check(request: Request) -> str | None:
        if settings.operator_password is None:
            return "operator"
        credentials: HTTPBasicCredentials | None = await basic(request)
        if credentials is None:
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
        address = _network(request.client.host if request.client else "")
        if not limiter.test(WRONG_PASSWORDS, address):
            raise HTTPException(
                429, "too many wrong passwords: wait a minute", headers={"Retry-After": "60"}
            )
        wanted = settings.operator_password.get_secret_value().encode()
        if not secrets.compare_digest(credentials.password.encode(), wanted):
            limiter.hit(WRONG_PASSWORDS, address)
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
        return "operator"

    return check  # type: ignore[return-value]  # gradio accepts async functions too


def _network(address: str) -> str:
    """Return the unit to limit: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        return str(ip_network(f"{address}/64" if ":" in address else address, strict=False))
    except ValueError:
        return address
