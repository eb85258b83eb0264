"""`burnish tools`: the tools that answers may call, and a try of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result

if TYPE_CHECKING:
    from app.workspace import Workspace

tools_app = typer.Typer(
    invoke_without_command=True, help="The tools that answers may call, and a try of one."
)


@tools_app.callback()
def list_tools(context: typer.Context, home: HomeOption = None, as_json: Json = False) -> None:
    """List the tools: those that are on, and the built-in ones that are off."""
    if context.invoked_subcommand is not None:
        return
    with open_workspace(home) as workspace:
        document = _listed(workspace)
    rows = [
        f"{'on ' if each['on'] else 'off'}  {each['name']}{_about(each)}"
        for each in document["tools"]
    ]
    print_result(as_json, document, "\n".join([*rows, *document["problems"]]))


@tools_app.command("call")
def call(
    name: Annotated[str, typer.Argument(help="The tool's name, as `burnish tools` has it.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, a JSON object.")] = "{}",
    user: Annotated[
        str, typer.Option("--user", help="The person whose documents are searched.")
    ] = "",
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Call a tool within the limits of the settings, as an answer would."""
    from app.tools.running import ToolRun
    from app.tools.toolbox import Caller
    from engine.errors import InvalidInput, UnknownId

    given = _arguments(arguments)
    with open_workspace(home) as workspace:
        offer = workspace.toolbox.of_everything(Caller(user))
        try:
            if name not in offer.calls:
                raise UnknownId(f"no tool {name[:64]!r} is on; `burnish tools` lists them")
            result, status = ToolRun(name, offer.calls[name], given, offer.limits).outcome()
        finally:
            offer.close()
    if status != "done":
        raise InvalidInput(result)
    print_result(as_json, {"name": name, "arguments": given, "result": result}, result)


def _listed(workspace: Workspace) -> dict[str, Any]:
    from app.tools.toolbox import built_in_tools

    toolbox = workspace.toolbox
    known, problems = toolbox.known(wait_seconds=toolbox.limits.timeout_seconds)
    on = {each.function.name for each in known}
    every = [*known, *(each for each in built_in_tools() if each.function.name not in on)]
    return {
        "tools": [
            {
                "name": each.function.name,
                "on": each.function.name in on,
                "server": each.server,
                "description": each.function.description,
                "parameters": json.loads(each.function.parameters),
            }
            for each in every
        ],
        "problems": problems,
    }


def _about(tool: dict[str, Any]) -> str:
    described = tool["description"].partition("\n")[0]
    return f": {described}" if described else ""


def _arguments(text: str) -> dict[str, Any]:
    from engine.errors import InvalidInput

    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InvalidInput("the arguments must be a JSON object")
    return given
