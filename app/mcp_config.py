"""The setting of an MCP server: a command on this machine, or an address."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

# Its tools are called `SERVER__TOOL`, and a function's name has 64 characters
McpServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,24}$")]


class McpServerConfig(BaseModel):
    """A server over stdio (`command`, with `args`, `env` and `cwd`), or streamable HTTP (`url`,
    with `headers`).

    A command gets no variable of Burnish's own environment but a few such as PATH and HOME.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str | None = Field(default=None, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, SecretStr] = {}
    cwd: str | None = None
    url: str | None = Field(default=None, pattern="^https?://")
    headers: dict[str, SecretStr] = {}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has a command or a url, and not both")
        if self.url is not None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd are a command's; a url has headers")
        if self.command is not None and self.headers:
            raise ValueError("headers are a url's; a command has env")
        return self
