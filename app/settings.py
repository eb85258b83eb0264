"""The settings. No other module reads the environment.

In decreasing precedence: command-line options, `BURNISH_*` environment variables, `settings.toml`
in the home folder, the defaults below. Unknown keys in the file are errors.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.mcp_config import McpServerConfig, McpServerName
from app.setting_types import CommaSeparated, Networks, Password, ToolNames
from deploy.canary.plan import DEFAULT_DAYS, DEFAULT_SHARE, DEFAULT_VOTES
from deploy.rounds.timetable import HOURS
from deploy.rounds.trigger import EVIDENCE_WEIGHTS
from engine.errors import InvalidInput
from engine.home import Home
from engine.request import SamplingParams
from engine.storage import write_atomically

VARIABLE_PREFIX = "BURNISH_"
Origin = Literal["command line", "environment", "file", "default"]
SAMPLING = SamplingParams()  # the defaults of the sampling settings
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECRET_BYTES = 32
# Environment variables that can make libraries send prompts elsewhere or open ports. They are
# removed, so that the libraries' defaults and the values below apply
FOREIGN_PREFIXES = ("GRADIO_", "LANGCHAIN_", "LANGSMITH_", "OTEL_", "WANDB_")
QUIET = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


class Settings(BaseSettings):
    """All settings of an operator."""

    model_config = SettingsConfigDict(env_prefix=VARIABLE_PREFIX, extra="forbid", frozen=True)
    _overrides: frozenset[str] = PrivateAttr(default=frozenset())  # the command line's

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
    engine: Literal["auto", "local", "reference"] = Field(
        default="auto", description="local is ours, reference is transformers' and slower"
    )
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

    consent: Literal["opt-out", "opt-in"] = Field(
        default="opt-out", description="whether what people say is trained on unless they object"
    )
    redact: bool = Field(default=True, description="take personal data out before training")
    learn_thoughts: bool = Field(
        default=True, description="train on the thought of a chain-of-thought answer, too"
    )
    retention_days: int | None = Field(
        default=None, ge=1, description="conversations are deleted so long after they ended"
    )
    max_answer_chars: int = Field(default=8_000, ge=1, description="longer ones teach nothing")
    user_share: float = Field(
        default=0.2, gt=0, le=1, description="of all examples, one user's at most"
    )
    user_floor: int = Field(default=50, ge=0, description="so many examples anybody may have")

    recipe: Path | None = Field(
        default=None, description="of trainings: a file or a shipped recipe's name"
    )
    tune_threads: int | None = Field(
        default=None, ge=1, description="of a tuning job; None is all processors"
    )
    tune_nice: int | None = Field(
        default=None,
        ge=0,
        le=19,
        description="niceness of a tuning job; None is only the time that nobody else uses",
    )
    tune_accelerate_config: Path | None = Field(
        default=None, description="several processes a job: ddp, fsdp, deepspeed, or a file"
    )
    judge_api_key: SecretStr | None = Field(
        default=None, min_length=1, description="for the endpoint of `burnish feedback judge`"
    )
    open_webui_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="whose ratings and edits are taken over before each round of the loop",
    )
    open_webui_api_key: SecretStr | None = Field(
        default=None, min_length=1, description="of one of its administrators"
    )
    canary_share: float = Field(
        default=DEFAULT_SHARE,
        gt=0,
        le=0.5,
        description="of new conversations, a canary's candidate's",
    )
    canary_votes: int = Field(
        default=DEFAULT_VOTES, ge=10, description="verdicts after which a canary stops undecided"
    )
    canary_days: float = Field(
        default=DEFAULT_DAYS, gt=0, description="days after which a canary stops undecided"
    )
    loop_canary: bool = Field(
        default=False, description="try a better release as a canary before it goes live"
    )
    loop_enabled: bool = Field(
        default=False, description="train and promote by itself, on the schedule"
    )
    loop_schedule: str = Field(
        default="0 3 * * *", description="crontab: minute hour day month dow"
    )
    loop_min_new_pairs: int = Field(
        default=50, ge=1, description="worth of new evidence that starts a round, in pairs"
    )
    loop_weight_corrections: float = Field(
        default=EVIDENCE_WEIGHTS["corrections"], ge=0, description="worth of a correction, in pairs"
    )
    loop_weight_thumbs: float = Field(
        default=EVIDENCE_WEIGHTS["thumbs"], ge=0, description="worth of a lone thumb, in pairs"
    )
    loop_weight_liked: float = Field(
        default=EVIDENCE_WEIGHTS["liked"],
        ge=0,
        description="worth of a liked answer beside its thumb",
    )
    loop_watch_ratings: bool = Field(
        default=True, description="start a round where the live release's ratings fell"
    )
    loop_every_days: int | None = Field(
        default=None, ge=1, description="start a round so often at least, if anything is new"
    )
    loop_quiet_hours: str | None = Field(
        default=None,
        pattern=HOURS.pattern,
        description="hours in which the loop does not work: 08:00-18:00",
    )
    loop_minutes_a_day: int | None = Field(
        default=None, ge=1, description="of work of the loop; a job goes on the next day"
    )
    loop_webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="which gets one signed JSON object for each finished round",
    )
    loop_webhook_secret: SecretStr | None = Field(
        default=None, min_length=16, description="that the objects are signed with"
    )
    gate_thresholds: Path | None = Field(
        default=None, description="YAML: what the gate asks of a candidate"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in order of precedence: command line, environment, file."""
        home = init_settings().get("home") or env_settings().get("home")
        file = Home(Path(home or user_data_path("burnish"))).settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def loop_weights(self) -> dict[str, float]:
        """Return what each kind of evidence is worth to the loop, in pairs."""
        return {
            "pairs": EVIDENCE_WEIGHTS["pairs"],
            "corrections": self.loop_weight_corrections,
            "thumbs": self.loop_weight_thumbs,
            "liked": self.loop_weight_liked,
        }

    @property
    def sampling(self) -> SamplingParams:
        """Return the sampling parameters of answers for which nobody chose others."""
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens
        )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    @property
    def has_accounts(self) -> bool:
        """Whether people sign in: by choice, and wherever others can reach the server."""
        return self.accounts or not self.is_local

    @property
    def public_url(self) -> str:
        """The server's address for browsers, as far as the settings tell."""
        scheme = "https" if self.secure_cookie else "http"
        name = self.allowed_hosts[0] if self.allowed_hosts else f"{self.host}:{self.port}"
        return f"{scheme}://{name}{self.path_prefix}"

    def origins(self) -> dict[str, Origin]:
        """Return where each setting comes from."""
        environment = {name.lower() for name in os.environ}
        return {name: self._origin(name, environment) for name in type(self).model_fields}

    def _origin(self, name: str, environment: Collection[str]) -> Origin:
        if name in self._overrides:
            return "command line"
        if f"{VARIABLE_PREFIX}{name}".lower() in environment:
            return "environment"
        return "file" if name in self.model_fields_set else "default"


def load_settings(**overrides: Any) -> Settings:
    """Load the settings; overrides that are None are ignored. Raises `InvalidInput`."""
    _silence_libraries()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
        settings._overrides = frozenset(given)
    except (ValidationError, ValueError) as error:
        raise InvalidInput(f"settings refused: {_sentences(error)}") from None
    if settings.user_header and not (settings.trusted_proxies and settings.has_accounts):
        raise InvalidInput(
            f"{VARIABLE_PREFIX}USER_HEADER needs {VARIABLE_PREFIX}TRUSTED_PROXIES and accounts:"
            " without them anybody could send the header"
        )
    if settings.loop_webhook_url and not settings.loop_webhook_secret:
        raise InvalidInput(
            f"{VARIABLE_PREFIX}LOOP_WEBHOOK_URL needs {VARIABLE_PREFIX}LOOP_WEBHOOK_SECRET"
        )
    if settings.oidc_issuer and not settings.oidc_client_id:
        raise InvalidInput(f"{VARIABLE_PREFIX}OIDC_ISSUER needs {VARIABLE_PREFIX}OIDC_CLIENT_ID")
    # Gradio's default is the system's temporary folder, under a predictable name
    os.environ["GRADIO_TEMP_DIR"] = str(Home(settings.home.absolute()).uploads)
    return settings


def _silence_libraries() -> None:
    """Disable the libraries' telemetry and warnings.

    Some libraries read the environment when they are imported, so settings are loaded first.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
        del os.environ[name]
    os.environ.update(QUIET)


def session_secret(home: Home) -> str:
    """Return the key that signs session cookies; it is made once and private to its owner.

    Raises `InvalidInput` if the file holds a key that is too short to be secure.
    """
    path = home.session_key
    if not path.is_file():
        write_atomically(path, secrets.token_hex(SECRET_BYTES).encode())
    key = path.read_text()
    if len(key) < 2 * SECRET_BYTES:
        raise InvalidInput(
            f"{path} is damaged: delete it, and everybody who used this server gets a new identity"
        )
    return key


def _sentences(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()
    )
