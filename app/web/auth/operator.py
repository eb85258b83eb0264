"""The console's password where there are no accounts: HTTP Basic."""

from __future__ import annotations

import secrets

from fastapi import HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import SecretStr
from starlette.types import Scope

from app.web.auth.throttle import network_of

WRONG_PASSWORDS = RateLimitItemPerMinute(10)  # per address


class ConsolePassword:
    """Checks the operator's password.

    After too many wrong passwords from an address, even the right one is refused for a minute, so
    that guessing takes years. Addresses are kept only in memory, and only for that minute.
    """

    def __init__(self, password: SecretStr) -> None:
        self._password = password
        self._basic = HTTPBasic(auto_error=False)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def check(self, scope: Scope) -> bool:
        """Return True for the right password; raises an HTTPException for any other."""
        request = Request(scope)
        credentials: HTTPBasicCredentials | None = await self._basic(request)
        if credentials is None:
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
        address = network_of(request.client.host if request.client else "")
        if not self._limiter.test(WRONG_PASSWORDS, address):
            raise HTTPException(
                429, "too many wrong passwords: wait a minute", headers={"Retry-After": "60"}
            )
        wanted = self._password.get_secret_value().encode()
        if not secrets.compare_digest(credentials.password.encode(), wanted):
            self._limiter.hit(WRONG_PASSWORDS, address)
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
        return True
