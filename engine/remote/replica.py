"""One server of vLLM's: which models it has, and the adapters that are loaded into it.

Knows vLLM's HTTP routes; knows nothing of prompts and answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from engine.errors import InvalidBundle, ModelUnavailable, PeerUnavailable

ADMIN_TIMEOUT_SECONDS = 60.0  # an adapter is read from disk, maybe a slow one
HEALTH_TIMEOUT_SECONDS = 5.0


class Replica:
    """One server. `healthy` is what the last look at it found."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url.rstrip("/")
        self.healthy = True
        self._client = client

    def require_base(self, digest: str) -> int:
        """Return the context's length in tokens.

        Raises `ModelUnavailable` unless the server serves the base model under its digest, and
        `PeerUnavailable` where it does not answer.
        """
        served = self.models()
        if digest not in served:
            names = ", ".join(sorted(served)) or "nothing"
            raise ModelUnavailable(
                f"{self.url} serves {names}; start it with --served-model-name {digest}"
            )
        return int(served[digest]["max_model_len"])

    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """The base model and the loaded adapters, by name."""
        response = self._request("GET", "/v1/models")
        return {each["id"]: each for each in response.raise_for_status().json()["data"]}

    def load(self, digest: str, folder: Path) -> None:
        """Load an adapter under its digest, unless it is loaded; returns once the server lists it.

        Raises `InvalidBundle` where the server refuses it, `PeerUnavailable` where it is away.
        """
        if digest in self.models():
            return
        body = {"lora_name": digest, "lora_path": str(folder.absolute())}
        response = self._request("POST", "/v1/load_lora_adapter", json=body)
        if response.is_success and digest in self.models():
            return
        raise InvalidBundle([f"{self.url} refuses it: {_message(response)}"])

    def unload(self, digest: str) -> None:
        """Unload an adapter; it may not be loaded. Raises `PeerUnavailable`."""
        self._request("POST", "/v1/unload_lora_adapter", json={"lora_name": digest})

    def look(self) -> bool:
        """Ask for the server's health and return it; a server in bad health is not `healthy`."""
        try:
            response = self._client.get(f"{self.url}/health", timeout=HEALTH_TIMEOUT_SECONDS)
            good = response.is_success
        except httpx.HTTPError:
            good = False
        self.healthy = self.healthy and good
        return good

    def _request(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            return self._client.request(
                method, self.url + path, timeout=ADMIN_TIMEOUT_SECONDS, **body
            )
        except httpx.HTTPError as error:
            self.healthy = False
            reason = f"{type(error).__name__}: {error}"
            raise PeerUnavailable(f"{self.url} does not answer: {reason}") from error


def _message(response: httpx.Response) -> str:
    """The reason of a refusal, in vLLM's form or as text."""
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}: {response.text[:500]}"
