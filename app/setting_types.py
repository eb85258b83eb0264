"""The types of settings, with the checks that each makes of its value."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from feedback_store.accounts.passwords import MIN_PASSWORD_CHARS


def _join_list(value: object) -> object:
    """Join a list to "a, b", the form of environment variables."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _require_ascii(password: SecretStr) -> SecretStr:
    if not password.get_secret_value().isascii():
        raise ValueError("must be ASCII: browsers do not agree on how to send anything else")
    return password


def _require_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        ip_network(network, strict=False)  # its ValueError names the address
    return networks


Password = Annotated[
    SecretStr, Field(min_length=MIN_PASSWORD_CHARS), AfterValidator(_require_ascii)
]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_join_list)]
ToolNames = Annotated[
    tuple[Literal["calculator", "clock", "documents"], ...], NoDecode, BeforeValidator(_join_list)
]
Networks = Annotated[CommaSeparated, AfterValidator(_require_networks)]
