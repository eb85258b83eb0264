"""The settings as an operator reads them: value, origin and meaning of each, secrets hidden.

`burnish doctor` and the console's tab *Settings* show these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.settings import VARIABLE_PREFIX, SettingOrigin, Settings

HIDDEN_VALUE = "********"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting: its value as text ("" for none), and where that comes from.

    `variable` is the environment variable that sets it; `meaning` is a phrase in English, which
    `app.texts.translated` translates.
    """

    name: str
    variable: str
    value: str
    origin: SettingOrigin
    meaning: str


def settings_table(settings: Settings) -> Sequence[SettingRow]:
    """Return a row for each setting, in the order of their definition."""
    origins = settings.origins()
    return [
        SettingRow(
            name,
            f"{VARIABLE_PREFIX}{name}".upper(),
            _shown(getattr(settings, name)),
            origins[name],
            field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def _shown(value: Any) -> str:
    """Return a value as text. Secrets and passwords within URLs are hidden."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return HIDDEN_VALUE
    if isinstance(value, dict):  # servers by name; their configurations hold secrets
        return ", ".join(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return _without_password(str(value))


def _without_password(text: str) -> str:
    if "://" not in text:
        return text
    try:
        password = urlsplit(text).password
    except ValueError:  # it is no URL after all
        return text
    return text.replace(f":{password}@", f":{HIDDEN_VALUE}@", 1) if password else text
