"""Signing in with an OpenID Connect provider: the authorization code flow with PKCE, by Authlib.

The provider's metadata and keys are fetched when somebody first signs in, and its ID token is
verified. State and nonce wait in the browser's signed cookie. Knows nothing of accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from app.settings import Settings
from engine.errors import InvalidInput

CALLBACK_PATH = "/account/callback"
WANTED = "wanted"  # in the cookie: where the log-in leads
PROVIDER_FAILED = "the provider did not sign you in; try again"


@dataclass(frozen=True, slots=True)
class Identified:
    """A person whom the provider vouches for: `origin` for good, `name` as they are called now."""

    origin: str
    name: str


class Provider:
    """The provider that the settings name."""

    def __init__(self, settings: Settings) -> None:
        try:
            from authlib.integrations.starlette_client import OAuth
        except ImportError:
            raise InvalidInput("an OIDC provider needs `pip install burnish[oidc]`") from None
        secret = settings.oidc_client_secret
        issuer = str(settings.oidc_issuer).removesuffix("/")
        self._base = settings.public_url if settings.allowed_hosts else None
        self._client: Any = OAuth().register(
            "provider",
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_id=settings.oidc_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
        )

    async def redirect(self, request: Request, wanted: str) -> Response:
        """Return the redirect to the provider; raises `InvalidInput` if it does not answer."""
        request.session[WANTED] = wanted
        base = self._base or str(request.base_url).rstrip("/")
        try:
            response: Response = await self._client.authorize_redirect(
                request, f"{base}{CALLBACK_PATH}"
            )
        except _failures():
            raise InvalidInput(PROVIDER_FAILED) from None
        return response

    async def identify(self, request: Request) -> Identified:
        """Return whom the provider sent back; raises `InvalidInput` where nothing proves that."""
        try:
            metadata = await self._client.load_server_metadata()
            expected = {
                "iss": {"essential": True, "values": [metadata["issuer"]]},
                "aud": {"essential": True, "values": [self._client.client_id]},
            }
            token = await self._client.authorize_access_token(request, claims_options=expected)
        except _failures():
            raise InvalidInput(PROVIDER_FAILED) from None
        claims: Mapping[str, Any] = token.get("userinfo") or {}
        if not claims.get("iss") or not claims.get("sub"):
            raise InvalidInput(PROVIDER_FAILED)
        name = next(
            str(claims[key]) for key in ("preferred_username", "email", "sub") if claims.get(key)
        )
        return Identified(f"{claims['iss']}|{claims['sub']}", name)


def _failures() -> tuple[type[Exception], ...]:
    """Return what is raised where a provider does not answer as one, or does not prove anything."""
    import httpx2  # Authlib's client
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    return AuthlibBaseError, JoseError, httpx2.HTTPError, KeyError, RuntimeError, ValueError
