"""`burnish feedback judge`: an AI judge labels answers that nobody judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_service, open_workspace, print_result

if TYPE_CHECKING:
    from app.workspace import Workspace
    from feedback_store.ai_feedback.siblings import Siblings
    from tuning.judge import Judge


Endpoint = Annotated[
    str | None,
    typer.Option(
        help="An OpenAI-compatible server, as https://host/v1, in place of the local model."
        " People's words go there. Its key: BURNISH_JUDGE_API_KEY."
    ),
]
EndpointModel = Annotated[str | None, typer.Option(help="The judge's name on that server.")]


def judge(
    home: HomeOption = None,
    snapshot: Annotated[
        str | None, typer.Option(help="The snapshot to train on; else one is made.")
    ] = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    as_json: Json = False,
) -> None:
    """Compare regenerated answers that nobody judged; prints the id of the labels."""
    if is_endpoint(endpoint, model):
        with open_workspace(home) as workspace:
            chosen = endpoint_judge(workspace, endpoint, model)
            found = _label(workspace, chosen, snapshot)
    else:
        from tuning.judge import EngineJudge

        with open_service(home) as service:
            found = _label(service.workspace, EngineJudge(service.engine), snapshot)
    lines = [
        found["labels"],
        f"snapshot: {found['snapshot']}",
        f"judge: {found['judge']}",
        f"compared: {_counts(found['outcomes'])}",
        f"people's held-out pairs: {_counts(found['agreement_with_people'])}",
    ]
    print_result(as_json, found, "\n".join(lines))


def is_endpoint(endpoint: str | None, model: str | None) -> bool:
    """Return whether a server judges; raises `typer.BadParameter` if only one option is given."""
    if (endpoint is None) != (model is None):
        raise typer.BadParameter("one needs the other", param_hint="--endpoint, --model")
    return endpoint is not None


def endpoint_judge(workspace: Workspace, endpoint: str | None, model: str | None) -> Judge:
    """Return the judge on a server, with the API key of the settings."""
    from tuning.judge import EndpointJudge

    key = workspace.settings.judge_api_key
    return EndpointJudge(endpoint or "", model or "", key.get_secret_value() if key else "")


def _label(workspace: Workspace, judge: Judge, snapshot: str | None) -> dict[str, Any]:
    """Publish a judge's labels.

    Raises `InvalidInput` if there is nothing to compare. Raises `Conflict` and keeps nothing if a
    person was forgotten meanwhile.
    """
    from engine.errors import Conflict, InvalidInput
    from engine.storage import find_digest, folder_of, read_manifest, remove_folder
    from feedback_store.snapshots.snapshot import open_snapshot
    from tuning.ai_labels import label_siblings

    before = workspace.training_set.refresh()
    siblings = _siblings(workspace)
    if not siblings:
        raise InvalidInput("no turn has several answers that nobody judged")
    snapshots = workspace.home.snapshots
    digest = find_digest(snapshots, snapshot) if snapshot else workspace.take_snapshot()
    root = workspace.home.ai_labels
    labels = label_siblings(
        judge, siblings, open_snapshot(snapshots, digest).heldout.pairs, root=root, snapshot=digest
    )
    if workspace.training_set.erased_since(before):
        remove_folder(folder_of(root, labels))
        raise Conflict("somebody was forgotten while the judge read; start it again")
    manifest = read_manifest(folder_of(root, labels))
    told = ("snapshot", "judge", "pairs", "outcomes", "agreement_with_people")
    return {"labels": labels, **{name: manifest[name] for name in told}}


def _siblings(workspace: Workspace) -> list[Siblings]:
    """Return the answers to compare, under a snapshot's rules: with consent only, redacted."""
    from feedback_store.ai_feedback.siblings import unjudged_siblings
    from feedback_store.examples.rules import Rules
    from feedback_store.privacy.redaction import Redactor

    rules = Rules(
        max_answer_chars=workspace.settings.max_answer_chars,
        refusing_users=frozenset(workspace.curation.refusing()),
    )
    redact: Callable[[str], str] | None = Redactor().redact if workspace.settings.redact else None
    return list(unjudged_siblings(workspace.database, workspace.store, rules, redact=redact))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"
