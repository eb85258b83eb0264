"""The settings of the server: its home, model, answers, address, accounts and tools.

`app.settings.Settings` adds those of learning, and reads them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from app.mcp_config import McpServerConfig, McpServerName
from app.setting_types import CommaSeparated, Networks, Password, ToolNames
from engine.request import SamplingParams

SAMPLING = SamplingParams()  # the defaults of the sampling settings
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServerSettings(BaseSettings):
    """Settings that a server needs to answer, and those of who may reach it."""

    home: Path = Field(
        default_factory=lambda: user_data_path("burnish"), description="folder with all state"
    )
    model_cache: Path = Field(
        default_factory=lambda: user_cache_path("burnish") / "models",
        description="folder with fetched and converted models",
    )
    database_url: str | None = Field(
        default=None, description="of PostgreSQL; None is a SQLite file in the home"
    )

    model: str = Field(
        default="embedded", description="base model: a preset, hub id, folder, file or bundle"
    )
    engine: Literal["auto", "local", "reference", "remote"] = Field(
        default="auto",
        description="local is ours, reference is transformers' and slower, remote is vLLM's",
    )
    remote_urls: CommaSeparated = Field(
        default=(), description="vLLM's servers, for the engine remote: http://10.0.0.2:8000"
    )
    remote_api_key: SecretStr | None = Field(default=None, description="of vLLM's servers")
    quantization: Literal["none", "int8", "int4"] = Field(
        default="int4", description="of the served weights: fewer bits are faster and smaller"
    )
    kv_cache_bytes: int | None = Field(
        default=None, ge=1, description="for keys and values; None is a share of the free memory"
    )
    max_rows: int = Field(default=32, ge=1, description="answers decoded at the same time")
    embedding_model: Path | None = Field(
        default=None, description="a folder: documents are searched by its vectors, too"
    )
    max_queue: int = Field(default=256, ge=1, description="answers waiting; more are refused")

    system_prompt: str = Field(
        default="You are a helpful assistant.", description="what the model is told before a chat"
    )
    own_examples: bool = Field(
        default=True,
        description="show the model what a person corrected and likes, for that person",
    )
    compare_rate: float = Field(
        default=0.05, ge=0, le=0.5, description="share of answers after which a choice is offered"
    )
    alternatives: int = Field(
        default=4,
        ge=0,
        le=16,
        description="answers written at idle times for each disliked one, to be compared; 0: none",
    )
    temperature: float = Field(
        default=SAMPLING.temperature, ge=0, le=10, description="of answers; 0 is greedy"
    )
    top_p: float = Field(
        default=SAMPLING.top_p, gt=0, le=1, description="probability of the tokens drawn from"
    )
    max_new_tokens: int = Field(
        default=SAMPLING.max_new_tokens, ge=1, description="longest answer, in tokens"
    )
    max_message_chars: int = Field(
        default=20_000, ge=1, description="longest question, in characters"
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=7860, ge=0, le=65535, description="0 takes a free one")
    accounts: bool = Field(
        default=False, description="let in who has an account alone; always so on other addresses"
    )
    operator_password: Password | None = Field(
        default=None, description="of the console where there are no accounts"
    )
    trusted_proxies: Networks = Field(
        default=(), description="addresses of proxies whose X-Forwarded-For is believed"
    )
    user_header: str | None = Field(
        default=None, description="header in which those proxies say who signed in: X-Remote-User"
    )
    oidc_issuer: str | None = Field(
        default=None, pattern="^https?://", description="OpenID Connect: who signs people in"
    )
    oidc_client_id: str | None = Field(default=None, description="this server's, there")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="this server's password there"
    )
    rate_limit: int = Field(
        default=600, ge=1, description="requests a minute of one account, and of each of its keys"
    )
    shutdown_grace_seconds: float = Field(
        default=20, ge=0, le=3600, description="seconds that running answers have to finish"
    )
    allowed_hosts: CommaSeparated = Field(
        default=(), description="accepted Host names, beside IP addresses and localhost"
    )
    allowed_origins: CommaSeparated = Field(
        default=(), description="origins that CORS lets use the API: https://example.org"
    )
    path_prefix: str = Field(
        default="", pattern=r"^(/[\w.~-]+)*$", description="path that a proxy strips: /burnish"
    )
    secure_cookie: bool = Field(
        default=False, description="send the session cookie over HTTPS only"
    )
    max_unfinished: int = Field(
        default=8, ge=1, description="running answers of one person on the chat page"
    )

    tools: ToolNames = Field(
        default=(), description="what people may let answers call: calculator, clock, documents"
    )
    mcp_servers: dict[McpServerName, McpServerConfig] = Field(
        default={}, description="whose tools people may let answers call, too"
    )
    tool_max_steps: int = Field(
        default=4, ge=1, le=16, description="times that an answer may call before it must end"
    )
    tool_timeout_seconds: float = Field(default=20, gt=0, le=600, description="of one call")
    tool_max_result_chars: int = Field(
        default=4_000, ge=100, le=100_000, description="of a tool; more is cut off"
    )

    @property
    def sampling(self) -> SamplingParams:
        """Return the sampling parameters of answers for which nobody chose others."""
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens
        )

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach the server."""
        return self.host in LOOPBACK

    @property
    def has_accounts(self) -> bool:
        """Return whether people sign in: by choice, and wherever others can reach the server."""
        return self.accounts or not self.is_local

    @property
    def public_url(self) -> str:
        """The server's address for browsers, as far as the settings tell."""
        scheme = "https" if self.secure_cookie else "http"
        name = self.allowed_hosts[0] if self.allowed_hosts else f"{self.host}:{self.port}"
        return f"{scheme}://{name}{self.path_prefix}"
