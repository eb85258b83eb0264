"""A small OpenID Connect provider on this machine, which signs everybody in as a person of choice.

It checks what the specification asks of a client: state and nonce come back, the code works once,
the verifier of PKCE fits its challenge, the secret is right.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from app.claims import listen
from tests.support.waiting import wait_until

CLIENT_ID, CLIENT_SECRET = "burnish", "a-secret-of-the-provider"


@dataclass
class OidcProvider:
    """What it says of whoever comes; tests change it."""

    issuer: str = ""
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "17", "preferred_username": "Ann"}
    )
    signing_key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048))
    published_key: RSAKey | None = None  # None: the one that signs
    nonce: str | None = None  # None: the client's
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        return [
            Route("/.well-known/openid-configuration", self._metadata),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
            Route("/jwks", self._jwks),
        ]

    async def _metadata(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        query = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{query}", 302)

    async def _token(self, request: Request) -> Response:
        form = {k: v[0] for k, v in parse_qs((await request.body()).decode()).items()}
        credentials = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or request.headers.get("authorization") != f"Basic {credentials}"
            or asked["code_challenge"] != challenge
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": self.nonce or asked["nonce"],
            **self.claims,
        }
        id_token = jwt.encode({"alg": "RS256"}, claims, self.signing_key)
        return JSONResponse({"access_token": "none", "token_type": "Bearer", "id_token": id_token})

    async def _jwks(self, _request: Request) -> Response:
        key = self.published_key or self.signing_key
        return JSONResponse({"keys": [key.as_dict(private=False)]})


@contextmanager
def oidc_provider() -> Iterator[OidcProvider]:
    """A running provider."""
    provider = OidcProvider()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=provider.routes()), log_level="error"))
    (listener,) = listen("127.0.0.1", 0)
    provider.issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield provider
    server.should_exit = True
    thread.join(timeout=30)
