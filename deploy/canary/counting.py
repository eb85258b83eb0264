"""The input of a canary's test: verdicts and outcomes by arm, from what was stored. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy.canary.guards import AnswerFacts, standard_seconds
from deploy.canary.plan import Arm, CanaryPlan
from deploy.canary.verdicts import Verdict
from feedback_store.view.canary_evidence import AnswerOutcome, CanaryEvidence, Said


def arms_of(plan: CanaryPlan, evidence: CanaryEvidence) -> dict[str, Arm]:
    """Return the arm of each conversation that is part of the canary.

    A conversation is part of it if the release of its arm wrote its first answer: it is not where a
    person had chosen another release, or where the canary began a moment before.
    """
    first: dict[str, AnswerOutcome] = {}
    for answer in evidence.answers:
        first.setdefault(answer.conversation_id, answer)
    arms = {conversation: plan.arm_of(conversation) for conversation in first}
    return {
        conversation: arm
        for conversation, arm in arms.items()
        if first[conversation].adapter == plan.release_of(arm)
    }


def verdicts_of(plan: CanaryPlan, evidence: CanaryEvidence) -> Iterator[Verdict]:
    """Yield the verdict of each conversation, in the order in which they were given."""
    arms = arms_of(plan, evidence)
    adapters = {answer.id: answer.adapter for answer in evidence.answers}
    thumbs = {
        (each.answer_id, each.user_id): each.value
        for each in evidence.said
        if each.kind == "vote" and each.value
    }
    judged: set[str] = set()
    for said in evidence.said:
        arm = arms.get(said.conversation_id)
        if arm is None or said.conversation_id in judged:
            continue
        verdict = _verdict(plan, arm, said, adapters, thumbs)
        if verdict is not None:
            judged.add(said.conversation_id)
            yield verdict


def _verdict(
    plan: CanaryPlan,
    arm: Arm,
    said: Said,
    adapters: Mapping[str, str | None],
    thumbs: Mapping[tuple[str, str], int | None],
) -> Verdict | None:
    """The verdict that a statement is; None where it is about no answer of the arm."""
    own = plan.release_of(arm)
    if said.kind == "choice":
        compared = [adapters.get(each, "") for each in (said.answer_id, said.other_id) if each]
        if set(compared) != {plan.candidate, plan.incumbent}:
            return None
        is_good = None if said.is_tie else compared[0] == own
        return Verdict(arm, is_good, said.user_id, "comparison")
    if adapters.get(said.answer_id, "") != own:
        return None
    thumb = thumbs.get((said.answer_id, said.user_id), -1)
    return Verdict(arm, thumb == 1, said.user_id)


def facts_of(plan: CanaryPlan, evidence: CanaryEvidence) -> Iterator[AnswerFacts]:
    """Yield how the answers of the canary ended, in the order in which they did."""
    arms = arms_of(plan, evidence)
    ended = [
        answer
        for answer in evidence.answers
        if answer.finished_at is not None and answer.conversation_id in arms
    ]
    for answer in sorted(ended, key=lambda each: each.finished_at or 0.0):
        arm: Arm | None = next(
            (arm for arm in ("candidate", "live") if answer.adapter == plan.release_of(arm)), None
        )
        if arm is not None and answer.status in ("done", "failed"):
            yield AnswerFacts(
                arm,
                failed=answer.status == "failed",
                empty=answer.status == "done" and answer.is_empty,
                seconds=_seconds(answer) if answer.status == "done" else None,
            )


def _seconds(answer: AnswerOutcome) -> float | None:
    """The seconds of an answer, as its person waited for it, at the standard length."""
    if answer.first_token_at is None or answer.finished_at is None:
        return None
    return standard_seconds(
        answer.first_token_at - answer.created_at,
        answer.finished_at - answer.created_at,
        answer.completion_tokens or 0,
    )
