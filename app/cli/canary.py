"""`burnish canary`: try a release on a share of conversations, and look at how it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.accounts import COMMAND_LINE
from app.cli.common import HomeOption, Json, open_workspace, print_result
from deploy.canary.plan import PROMOTE_ERROR, ROLLBACK_ERROR, CanaryPlan
from engine.errors import Conflict
from engine.storage import find_digest, short_id

if TYPE_CHECKING:
    from deploy.canary.canaries import CanaryStatus

Share = Annotated[
    float | None, typer.Option(help="Of new conversations that it answers, at most 0.5.")
]
Votes = Annotated[int | None, typer.Option(help="Verdicts until it stops undecided.")]
PromoteError = Annotated[
    float, typer.Option(help="Probability of promoting a release that is no better, at most.")
]
RollbackError = Annotated[
    float, typer.Option(help="Probability of rolling back one that is no worse, at most.")
]

canary_app = typer.Typer(
    no_args_is_help=True, help="A release on trial, on a share of conversations."
)


@canary_app.command("start")
def canary_start(
    release: Annotated[str, typer.Argument(help="A release's id, or its beginning.")],
    home: HomeOption = None,
    share: Share = None,
    votes: Votes = None,
    days: Annotated[float | None, typer.Option(help="Days until it stops undecided.")] = None,
    promote_error: PromoteError = PROMOTE_ERROR,
    rollback_error: RollbackError = ROLLBACK_ERROR,
    as_json: Json = False,
) -> None:
    """Let a release answer a share of the conversations that begin from now on.

    What people say decides: it goes live, or nobody gets it any more, or the budget ends first.
    The running server follows within seconds.
    """

    asked: dict[str, Any] = {
        "share": share,
        "votes": votes,
        "days": days,
        "promote_error": promote_error,
        "rollback_error": rollback_error,
    }
    with open_workspace(home) as workspace:
        digest = find_digest(workspace.home.bundles, release)
        given = {name: value for name, value in asked.items() if value is not None}
        canary = workspace.canaries.start_by(COMMAND_LINE, digest, **given)
        workspace.accounts.audit.record(COMMAND_LINE, "canary start", digest)
        document = workspace.canaries.status(canary).as_dict()
    plan = canary.plan
    text = (
        f"{digest} answers {plan.share:.0%} of the conversations that begin from now on,"
        f" until {plan.votes} verdicts or {plan.days:g} days"
    )
    print_result(as_json, document, text)


@canary_app.command("status")
def canary_status(home: HomeOption = None, as_json: Json = False) -> None:
    """Show the canary that runs, or the last one: verdicts by arm, and how near a decision is."""
    with open_workspace(home) as workspace:
        newest = workspace.canaries.newest()
        status = workspace.canaries.status(newest) if newest else None
    if status is None:
        print_result(as_json, {"canary": None}, "no canary was started")
        return
    print_result(as_json, status.as_dict(), canary_lines(status))


@canary_app.command("stop")
def canary_stop(home: HomeOption = None, as_json: Json = False) -> None:
    """End the canary undecided; its conversations keep their release for a day."""
    with open_workspace(home) as workspace:
        status = workspace.canaries.stop(COMMAND_LINE)
        workspace.accounts.audit.record(COMMAND_LINE, "canary stop", status.canary.plan.candidate)
    print_result(as_json, status.as_dict(), f"stopped after {status.standing.votes} verdicts")


@canary_app.command("rollback")
def canary_rollback(
    home: HomeOption = None,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    as_json: Json = False,
) -> None:
    """Take the release on trial back: nobody gets it any more from the next answer on."""
    with open_workspace(home) as workspace:
        running = workspace.canaries.running()
        if running is None:
            raise Conflict("no canary runs")
        candidate = running.plan.candidate
        status = workspace.canaries.take_back(COMMAND_LINE, candidate, reason)
        workspace.accounts.audit.record(COMMAND_LINE, "canary roll back", candidate)
    print_result(as_json, status.as_dict(), f"taken back: {candidate}")


@canary_app.command("simulate")
def canary_simulate(
    candidate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of its answers that people find good.")
    ] = 0.6,
    live: Annotated[float, typer.Option(min=0, max=1, help="The same of the live release.")] = 0.5,
    comparisons: Annotated[
        float, typer.Option(min=0, max=1, help="Share of verdicts that compare two answers.")
    ] = 0.0,
    home: HomeOption = None,
    share: Share = None,
    votes: Votes = None,
    promote_error: PromoteError = PROMOTE_ERROR,
    rollback_error: RollbackError = ROLLBACK_ERROR,
    runs: Annotated[int, typer.Option(min=1, help="Canaries to play.")] = 2_000,
    as_json: Json = False,
) -> None:
    """Play canaries by a random generator: how often and how soon would one decide?"""
    from app.settings import load_settings

    settings = load_settings(home=home, canary_share=share, canary_votes=votes)
    from deploy.canary.simulation import Scenario, simulate

    plan = CanaryPlan(
        "candidate",
        None,
        "simulation",
        share=settings.canary_share,
        votes=settings.canary_votes,
        promote_error=promote_error,
        rollback_error=rollback_error,
    )
    found = simulate(plan, Scenario(candidate, live, comparisons), runs=runs)
    text = (
        f"promoted {found.promoted:.1%}, rolled back {found.rolled_back:.1%},"
        f" undecided {found.undecided:.1%}; ended after {found.median_votes:.0f} verdicts (median)"
    )
    print_result(as_json, found.as_dict(), text)


def canary_lines(status: CanaryStatus) -> str:
    """Return a canary's figures in a few lines."""
    canary, standing = status.canary, status.standing
    plan = canary.plan
    state = "runs" if canary.runs else f"ended: {canary.outcome}"
    live = short_id(plan.incumbent) if plan.incumbent else "base"
    lines = [f"{short_id(plan.candidate)} against {live}: {state}"]
    for arm in ("candidate", "live"):
        counts = standing.arms[arm]
        judged = counts.good + counts.bad
        rate = f"{counts.good / judged:.0%} good" if judged else "no verdict yet"
        said = f"{counts.good} good, {counts.bad} bad, {counts.ties} ties"
        lines.append(f"  {arm:<10} {said}: {rate}")
    lines += [
        f"  {standing.votes} of {plan.votes} verdicts, {standing.comparisons} of them comparisons",
        f"  evidence that it is better: {standing.better:.2f} of {standing.better_needed:.0f}"
        f" (e-value; promotes there)",
        f"  evidence that it is worse: {standing.worse:.2f} of {standing.worse_needed:.0f}"
        f" (e-value; rolls back there)",
    ]
    if status.reason:
        lines.append(f"  {status.reason}")
    return "\n".join(lines)
