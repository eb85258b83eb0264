"""Wires the canaries of a home: routes and compares answers by them, watches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.answering.canary_routing import CanaryRouter
from app.answering.comparing import Comparisons
from app.answering.conversation import Chat
from app.learning.schedules import Schedules
from engine.adapters.slots import AdapterSlots

if TYPE_CHECKING:
    from app.workspace import Workspace


def canary_router(slots: AdapterSlots, workspace: Workspace) -> CanaryRouter:
    """Return what decides which release answers, on one running engine."""
    return CanaryRouter(slots, workspace.store, workspace.canaries)


def canary_comparisons(chat: Chat, workspace: Workspace) -> Comparisons:
    """Return the comparisons, in which a candidate stands beside the live release."""

    def other_release(user_id: str, answer_id: str) -> str | None:
        candidate = workspace.canaries.compared()
        writer = workspace.store.answer(answer_id, user_id).adapter_digest
        return None if writer == candidate else candidate

    return Comparisons(chat, other_release, workspace.settings.compare_rate)


def watch_canaries(slots: AdapterSlots, workspace: Workspace, schedules: Schedules) -> None:
    """Watch the canary on one running engine, on a schedule."""
    from deploy.canary.watch import LOOK_SECONDS, CanaryWatch

    schedules.each_seconds(LOOK_SECONDS, CanaryWatch(workspace.canaries, slots).look)
