"""Tell an operator's URL of each finished round: one JSON object, signed. Nothing else is sent.

The server sends nothing out by itself; this is done where the operator has set a URL, and the
object has digests, counts and verdicts: no text and no person. Signed as Standard Webhooks 1.0
asks (standardwebhooks.com): HMAC-SHA256 over "id.timestamp.body". A server that is killed while it
sends may send the same round again, with the same id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import PeerUnavailable
from engine.storage import canonical_json

TRIES = 3
SECONDS_BETWEEN = 2.0
TIMEOUT_SECONDS = 10.0


def signed_headers(secret: str, identity: str, at: float, body: bytes) -> dict[str, str]:
    """The headers of a delivery.

    `secret` is "whsec_" and a key in base64, as the libraries of Standard Webhooks take it, or any
    other text, which is the key itself.
    """
    signed = b".".join((identity.encode(), str(int(at)).encode(), body))
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def deliver(
    url: str,
    secret: str,
    identity: str,
    document: Mapping[str, Any],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Post a document and try again after failures; raises `PeerUnavailable` after the last.

    No redirect is followed, so the URL alone gets it.
    """
    import httpx  # slow to import, and commands that only look at the loop send nothing

    body = canonical_json(document)
    reason = ""
    for number in range(TRIES):
        if number:
            sleep(SECONDS_BETWEEN)
        headers = signed_headers(secret, identity, time.time(), body)
        try:
            answered = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            reason = type(error).__name__
            continue
        if answered.is_success:
            return
        reason = f"status {answered.status_code}"
    raise PeerUnavailable(f"the loop's webhook was not delivered: {reason}")


def _key(secret: str) -> bytes:
    return base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
