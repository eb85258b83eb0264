"""`/v1/feedback`: a program says what its people say of the answers of `/v1/chat/completions`.

A completion is named by its id, which means its first choice, or by the `answer_id` of a choice.
What is stored is what the page stores: votes with reasons, corrections, and choices between two
answers to the same question. Knows nothing of what is learnt from them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.service import Service
from app.web.auth.identity import user_of
from app.web.body import StrictJsonRoute
from app.web.chat.feedback_api import in_bounded_threadpool
from app.web.completion_ids import AnswerName
from app.web.completion_ids import completion_id as id_of
from engine.errors import InvalidInput
from engine.messages import require_text
from feedback_store.records import ChoiceValue, CurrentChoice, VoteValue
from feedback_store.storage.statement_store import MAX_COMMENT_CHARS, require_reasons
from feedback_store.storage.store import FeedbackStore

HowCompared = Literal["better", "worse", "tie", "both_bad"]
# The completion stands on the left of the one that it is compared with
CHOICE_OF: dict[HowCompared, ChoiceValue] = {
    "better": "left",
    "worse": "right",
    "tie": "tie",
    "both_bad": "both_bad",
}
CALLER_KEY_CHARS = 48  # of the caller's; each statement of a body has a key of its own
CompletionId = Annotated[AnswerName, Field(min_length=1, max_length=80)]


class FeedbackBody(BaseModel):
    """A person's feedback on a completion: any of a vote, a correction and a comparison.

    `vote` is 1 (up), -1 (down) or 0 (cleared); `reasons` and `comment` come with it. With
    `compared_with`, `preference` says how the completion compares with another answer to the very
    same messages. Repeating an idempotency key has no effect.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    completion_id: CompletionId
    vote: VoteValue | None = None
    reasons: Annotated[list[str], Field(max_length=20)] = []
    comment: Annotated[str, Field(max_length=MAX_COMMENT_CHARS)] = ""
    correction: str | None = None
    compared_with: CompletionId | None = None
    preference: HowCompared | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=CALLER_KEY_CHARS)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Raise `InvalidInput` here, so that of several statements all are stored or none."""
        if self.vote is None and self.correction is None and self.preference is None:
            raise InvalidInput("give a vote, a correction, or a preference with compared_with")
        if self.vote is None and (self.reasons or self.comment):
            raise InvalidInput("reasons and comment need a vote")
        if (self.compared_with is None) != (self.preference is None):
            raise InvalidInput("compared_with and preference need each other")
        if self.vote is not None:
            require_reasons(self.vote, self.reasons)
        if self.correction is not None:
            require_text(self.correction, what="correction")
        return self

    def key_of(self, statement: str) -> str | None:
        """Return the idempotency key of one statement."""
        return None if self.idempotency_key is None else f"{self.idempotency_key}/{statement}"


class ComparedCompletion(BaseModel):
    """The comparison of a completion with another one, by what its person said last."""

    completion_id: str
    preference: HowCompared


class CompletionFeedback(BaseModel):
    """All that the caller says of a completion now; a vote of 0 is none."""

    object: Literal["feedback"] = "feedback"
    completion_id: str
    vote: VoteValue = 0
    reasons: list[str] = []
    comment: str = ""
    correction: str | None = None
    comparisons: list[ComparedCompletion] = []


class WithdrawnFeedback(BaseModel):
    """The feedback on a completion after it was withdrawn: none."""

    object: Literal["feedback.deleted"] = "feedback.deleted"
    completion_id: str
    deleted: bool = True


def completion_feedback_router(service: Service) -> APIRouter:
    """Return the routes, on one running service."""
    router = APIRouter(prefix="/v1/feedback", route_class=StrictJsonRoute)
    store = service.workspace.store

    @router.post("")
    @in_bounded_threadpool
    def say(body: FeedbackBody, request: Request) -> CompletionFeedback:
        """Store what a person says of a completion; returns all that holds now."""
        user = user_of(request.session)
        _store(store, user, body)
        return _said(store, user, body.completion_id)

    @router.get("/{completion_id}")
    @in_bounded_threadpool
    def said(completion_id: AnswerName, request: Request) -> CompletionFeedback:
        """Return what the caller says of a completion now."""
        return _said(store, user_of(request.session), completion_id)

    @router.delete("/{completion_id}")
    @in_bounded_threadpool
    def withdraw(completion_id: AnswerName, request: Request) -> WithdrawnFeedback:
        """Take back all that the caller says of a completion."""
        store.withdraw(completion_id, user_of(request.session))
        return WithdrawnFeedback(completion_id=id_of(completion_id))

    return router


def _store(store: FeedbackStore, user: str, body: FeedbackBody) -> None:
    """Store the statements of a body. What can be refused is refused by the first one."""
    answer_id = body.completion_id
    if body.compared_with is not None and body.preference is not None:
        compared = store.compare(answer_id, body.compared_with, user, once=True)
        choice = CHOICE_OF[body.preference]
        store.choose(compared.id, user, choice, idempotency_key=body.key_of("choice"))
    if body.vote is not None:
        store.vote(
            answer_id,
            user,
            body.vote,
            reasons=body.reasons,
            comment=body.comment,
            idempotency_key=body.key_of("vote"),
        )
    if body.correction is not None:
        key = body.key_of("correction")
        store.correct(answer_id, user, body.correction, idempotency_key=key)


def _said(store: FeedbackStore, user: str, answer_id: str) -> CompletionFeedback:
    said = store.statements_on(answer_id, user)
    vote = said.vote
    return CompletionFeedback(
        completion_id=id_of(answer_id),
        vote=vote.vote if vote else 0,
        reasons=list(vote.reasons) if vote else [],
        comment=vote.comment if vote else "",
        correction=said.correction,
        comparisons=[_compared(choice, answer_id) for choice in said.choices],
    )


def _compared(choice: CurrentChoice, answer_id: str) -> ComparedCompletion:
    """Return a choice as it is seen from one of its two answers."""
    is_left = choice.left_answer_id == answer_id
    other = choice.right_answer_id if is_left else choice.left_answer_id
    preference: HowCompared = "tie" if choice.choice == "tie" else "both_bad"
    if choice.winner is not None:
        preference = "better" if choice.winner == answer_id else "worse"
    return ComparedCompletion(completion_id=id_of(other), preference=preference)
