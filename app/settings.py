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

from platformdirs import user_data_path
from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.server_settings import ServerSettings
from deploy.canary.plan import DEFAULT_DAYS, DEFAULT_SHARE, DEFAULT_VOTES
from deploy.rounds.timetable import HOURS
from deploy.rounds.trigger import EVIDENCE_WEIGHTS
from engine.errors import InvalidInput
from engine.home import Home
from engine.storage import write_atomically

VARIABLE_PREFIX = "BURNISH_"
SettingOrigin = Literal["command line", "environment", "file", "default"]
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


class Settings(ServerSettings):
    """All settings of an operator: those of the server, of learning, and of the loop."""

    model_config = SettingsConfigDict(env_prefix=VARIABLE_PREFIX, extra="forbid", frozen=True)
    _overrides: frozenset[str] = PrivateAttr(default=frozenset())  # the command line's

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
    tune_objects: str | None = Field(
        default=None,
        pattern=r"^\S+$",
        description="URL by which jobs reach other hosts' workers: s3://bucket/burnish, a folder",
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
    loop_promotes: bool = Field(
        default=True, description="a better release goes live, or on trial; else it waits for you"
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

    def origins(self) -> dict[str, SettingOrigin]:
        """Return where each setting comes from."""
        environment = {name.lower() for name in os.environ}
        return {name: self._origin(name, environment) for name in type(self).model_fields}

    def _origin(self, name: str, environment: Collection[str]) -> SettingOrigin:
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
    if settings.tune_objects and settings.tune_accelerate_config:
        raise InvalidInput("a job is done by a worker elsewhere or by several processes, not both")
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
