"""The settings: the only reader of the environment.

In falling order of precedence: what the command line says, `BURNISH_*` environment variables,
`settings.toml` in the home folder, the defaults below. Unknown keys in the file are errors.
"""

from __future__ import annotations

import os
import secrets
import warnings
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engine.errors import InvalidInput
from engine.storage import write_atomically

PREFIX = "BURNISH_"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Field(default_factory=lambda: user_data_path("burnish"))
    model_cache: Path = Field(default_factory=lambda: user_cache_path("burnish") / "models")
    database_url: str | None = None

    model: str = "embedded"
    engine: Literal["auto", "local", "reference"] = "auto"
    quantization: Literal["none", "int8", "int4"] = "int4"
    kv_cache_bytes: int | None = Field(
        default=None, ge=1, description="for keys and values; None is a share of the free memory"
    )
    max_rows: int = Field(default=32, ge=1, description="answers decoded at the same time")
    max_queue: int = Field(default=256, ge=1, description="answers waiting; more are refused")

    system_prompt: str = "You are a helpful assistant."
    temperature: float = Field(default=0.7, ge=0, le=10)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=512, ge=1)
    max_message_chars: int = Field(default=20_000, ge=1)

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    operator_password: SecretStr | None = None

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

    recipe: Path | None = None
    tune_threads: int | None = Field(
        default=None, ge=1, description="of a tuning job; None is all processors"
    )
    tune_accelerate_config: Path | None = Field(
        default=None, description="several processes a job: ddp, fsdp, deepspeed, or a file"
    )
    judge_api_key: SecretStr | None = Field(
        default=None, description="for the endpoint of `burnish feedback judge`"
    )
    loop_enabled: bool = False
    loop_schedule: str = Field(
        default="0 3 * * *", description="crontab: minute hour day month dow"
    )
    loop_min_new_pairs: int = Field(default=50, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, file."""
        home = init_settings().get("home") or env_settings().get("home")
        file = Path(home or user_data_path("burnish")) / "settings.toml"
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    def origins(self) -> dict[str, str]:
        """Where each setting comes from: environment, or set (file or command line), or default."""
        environment = {name.lower() for name in os.environ}
        return {
            name: "environment"
            if f"{PREFIX}{name}".lower() in environment
            else ("set" if name in self.model_fields_set else "default")
            for name in type(self).model_fields
        }


def load_settings(**overrides: Any) -> Settings:
    """The settings; overrides that are None are left out. Raises `InvalidInput`."""
    _silence_libraries()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except (ValidationError, ValueError) as error:
        raise InvalidInput(f"settings refused: {_sentences(error)}") from None
    if not settings.is_local and settings.operator_password is None:
        raise InvalidInput(
            f"the server would listen on {settings.host}: set {PREFIX}OPERATOR_PASSWORD first,"
            " or anyone who reaches it could retrain and release"
        )
    return settings


def _silence_libraries() -> None:
    """No word from this machine to a library's makers; no library warnings between our lines."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name, value in {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def session_secret(home: Path) -> str:
    """The key that signs session cookies; made once, readable by its owner alone."""
    path = home / "session.key"
    if not path.is_file():
        write_atomically(path, secrets.token_hex(32).encode())
        path.chmod(0o600)
    return path.read_text()


def _sentences(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()
    )
