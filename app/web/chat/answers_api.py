"""Routes of the chat page that ask questions and follow, join, stop and compare answers.

A stream's first event is the turn; then come patches of its HTML, each `[part, keep, tail]`, and
for several chains of thought the number that have ended; the last event says how it ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.answering.answer_elsewhere import AnswerElsewhere, FollowedAnswer
from app.answering.answer_options import AnswerOptions
from app.answering.answering import LIVE
from app.answering.conversation import Chat
from app.answering.live_answers import AnswerFactory, LiveAnswers
from app.service import Service
from app.texts import language_for
from app.tools.called import CalledTool
from app.tools.clock import zone_of
from app.web.auth.identity import user_of
from app.web.chat.conversation_serializer import ConversationSerializer
from app.web.chat.documents import AnswerStreamRenderer, answer_document, waiting_document
from app.web.chat.feedback_api import SAVED, ChoiceBody, in_bounded_threadpool
from app.web.streaming.event_stream import event, event_stream
from engine.messages import Message
from engine.prompts.modes import CHAINS, LEAST_CHAINS, MOST_CHAINS
from engine.request import SamplingParams
from feedback_store.documents.library import MAX_DOCUMENT_NAME_CHARS, Collection
from feedback_store.storage.turns import new_id

PATCH_INTERVAL_SECONDS = 0.1  # between patches; each costs a browser about 10 ms


class SamplingBody(BaseModel):
    """Sampling parameters that replace the operator's."""

    model_config = ConfigDict(extra="forbid")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_new_tokens: int | None = Field(default=None, ge=1, le=32_768)
    seed: int | None = Field(default=None, ge=0, lt=2**31)

    def over(self, chat: Chat) -> SamplingParams:
        """Return the operator's parameters with these in their place."""
        return chat.sampling(**self.model_dump(exclude_none=True))


class TemporaryMessage(BaseModel):
    """One message of a temporary chat, which only the page keeps."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str


class CollectionBody(BaseModel):
    """A collection of documents: the person's own, or one that is shared with everybody."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=MAX_DOCUMENT_NAME_CHARS)
    shared: bool = False

    def of(self, user: str) -> Collection:
        """Return the collection as this user may ask it."""
        return Collection(self.name, None if self.shared else user)


class QuestionBody(BaseModel):
    """A question. Without `conversation_id` it starts a conversation; with `temporary` nothing is
    stored and `history` holds the earlier messages; with `documents` it is answered from them."""

    model_config = ConfigDict(extra="forbid")
    question: str
    conversation_id: str | None = Field(default=None, max_length=64)
    parent_answer_id: str | None = Field(default=None, max_length=64)
    mode: str = "plain"
    samples: int = Field(default=CHAINS, ge=LEAST_CHAINS, le=MOST_CHAINS)
    system: str = ""
    thinking: bool | None = None
    release: str = Field(default=LIVE, max_length=71)
    sampling: SamplingBody = SamplingBody()
    temporary: bool = False
    history: list[TemporaryMessage] = Field(default=[], max_length=1_000)
    documents: CollectionBody | None = None
    time_zone: str = Field(default="", max_length=64)

    def options(self, chat: Chat, adapter: str | None, user: str) -> AnswerOptions:
        """Return the options of the answer; `adapter` is the release's digest."""
        return AnswerOptions(
            self.mode,
            self.samples,
            self.system,
            self.thinking,
            adapter,
            self.sampling.over(chat),
            self.documents.of(user) if self.documents else None,
            zone_of(self.time_zone),
        )

    @property
    def history_messages(self) -> list[Message]:
        """The earlier messages of a temporary chat."""
        return [Message(each.role, each.content) for each in self.history]


class AgainBody(BaseModel):
    """A request for another answer to the question or, with `change`, a rewritten answer."""

    model_config = ConfigDict(extra="forbid")
    change: str | None = Field(default=None, max_length=32)
    instruction: str = ""
    to_compare: bool = False
    release: str = Field(default=LIVE, max_length=71)
    sampling: SamplingBody = SamplingBody()
    time_zone: str = Field(default="", max_length=64)


def add_answer_routes(
    router: APIRouter, service: Service, live: LiveAnswers, serializer: ConversationSerializer
) -> None:
    """Add the routes of questions, and those under `/answers` that start or follow an answer."""
    chat, store = service.chat, service.workspace.store

    async def stream_new(
        request: Request, conversation_id: str | None, begin: AnswerFactory
    ) -> Response:
        user = user_of(request.session)
        answer = await run_sync(partial(live.start, user, conversation_id, begin))
        return await stream_existing(answer, request)

    async def stream_existing(answer: FollowedAnswer, request: Request) -> Response:
        language = language_for(request)
        # Read before the response starts, so that an error gets its own status
        opening = await run_sync(serializer.turn, answer, language)
        events = _events(answer, opening or {}, serializer, language)
        return event_stream(events, request)

    @router.post("/questions", response_model=None)
    async def ask(body: QuestionBody, request: Request) -> Response:
        user = user_of(request.session)
        adapter = await run_sync(service.adapter_named, body.release)
        options = body.options(chat, adapter, user)
        if body.temporary:
            begin = partial(chat.ask_unstored, user, body.history_messages, body.question, options)
            return await stream_new(request, None, begin)
        conversation_id = body.conversation_id or new_id()
        begin = partial(
            chat.ask,
            user,
            body.question,
            options,
            conversation_id=conversation_id,
            parent_answer_id=body.parent_answer_id,
        )
        return await stream_new(request, conversation_id, begin)

    async def running(answer_id: str, request: Request) -> FollowedAnswer:
        """Find a running answer of the person's: here, or else on another server."""
        user = user_of(request.session)
        if (here := live.find(answer_id, user)) is not None:
            return here
        return await run_sync(AnswerElsewhere, store, answer_id, user)

    async def conversation_of(answer_id: str, user: str) -> str:
        turn = await run_sync(chat.turn_of, answer_id, user)
        return turn.conversation_id

    @router.post("/answers/{answer_id}/again", response_model=None)
    async def again(answer_id: str, body: AgainBody, request: Request) -> Response:
        user, sampling = user_of(request.session), body.sampling.over(chat)
        adapter = await run_sync(service.adapter_named, body.release)
        conversation_id = await conversation_of(answer_id, user)

        named: dict[str, Any] = {"adapter": adapter, "sampling": sampling}
        begin: AnswerFactory
        if body.change is not None:
            begin = partial(chat.change, user, answer_id, body.change, body.instruction, **named)
        elif body.to_compare:
            second_answer = service.comparisons.second_answer
            begin = partial(
                second_answer, user, answer_id, sampling=sampling, zone=zone_of(body.time_zone)
            )
        else:
            zone = zone_of(body.time_zone)
            begin = partial(chat.regenerate, user, answer_id, zone=zone, **named)
        return await stream_new(request, conversation_id, begin)

    @router.post("/answers/{answer_id}/continue", response_model=None)
    async def go_on(answer_id: str, request: Request) -> Response:
        user = user_of(request.session)
        conversation_id = await conversation_of(answer_id, user)
        return await stream_new(
            request, conversation_id, partial(chat.continue_answer, user, answer_id)
        )

    @router.post("/answers/{answer_id}/now", response_model=None)
    async def now(answer_id: str, request: Request) -> Response:
        user = user_of(request.session)
        return await stream_new(request, None, partial(chat.answer_now, user, answer_id))

    @router.get("/answers/{answer_id}/stream", response_model=None)
    async def join(answer_id: str, request: Request) -> Response:
        return await stream_existing(await running(answer_id, request), request)

    @router.post("/answers/{answer_id}/stop")
    async def stop(answer_id: str, request: Request) -> dict[str, str]:
        answer = await running(answer_id, request)
        await run_sync(answer.stop)
        return {"status": "stopping"}


def add_offer_routes(router: APIRouter, service: Service, live: LiveAnswers) -> None:
    """Add the routes of second answers and of comparisons that wait."""
    store, comparisons = service.workspace.store, service.comparisons
    queue = service.workspace.comparison_queue
    consents = service.workspace.curation.consents

    @router.post("/waiting/{waiting_id}/choice")
    @in_bounded_threadpool
    def choose(waiting_id: int, body: ChoiceBody, request: Request) -> dict[str, str]:
        user = user_of(request.session)
        queue.choose(waiting_id, user, body.choice, asked_by=user)
        return SAVED

    @router.get("/answers/{answer_id}")
    @in_bounded_threadpool
    def answer(answer_id: str, request: Request) -> dict[str, Any]:
        found = store.answer(answer_id, user_of(request.session))
        return answer_document(found, language_for(request))

    @router.post("/answers/{answer_id}/offer")
    async def offer(answer_id: str, request: Request) -> dict[str, Any]:
        """Offer, at random, a comparison of the person's own that waits, or else a second answer,
        for which the page waits until it is written."""
        user, language = user_of(request.session), language_for(request)
        first = await run_sync(store.answer, answer_id, user)
        asked = (
            first.status == "done"
            and not first.tool_calls  # nobody asked that they be called again
            and not live.busy
            and comparisons.is_due(user)
        )
        if not asked or not await run_sync(consents, user):
            return {}
        if waiting := await run_sync(
            partial(queue.waiting, 1, live=service.slots.live, asked_by=user)
        ):
            due = comparisons.offers_waiting(user)
            return {"waiting": waiting_document(waiting[0])} if due else {}
        begin = partial(comparisons.second_answer, user, answer_id)
        second = await run_sync(live.start, user, None, begin)
        async for _ in second.updates():
            pass
        ended = second.latest
        if ended.answer_id is None:
            return {}
        if ended.status != "done" or not comparisons.is_offered(user, first.text, ended.text):
            # The person asked for no second answer, so it does not stand beside the first one
            await run_sync(service.workspace.alternatives.hide, ended.answer_id, user)
            return {}
        found = await run_sync(store.answer, ended.answer_id, user)
        return {"second": answer_document(found, language)}


async def _events(
    answer: FollowedAnswer,
    opening: Mapping[str, Any],
    serializer: ConversationSerializer,
    language: str,
) -> AsyncIterator[str]:
    yield event({"live": answer.id, **opening}, "begin")
    drawn = AnswerStreamRenderer(answer)
    called: tuple[CalledTool, ...] = ()
    async for update in answer.updates(pause=PATCH_INTERVAL_SECONDS):
        if update.chains:
            yield event(update.chains, "chains")
        if update.called != called:
            called = update.called
            yield event([each.as_row() for each in called], "called")
        for patch in drawn.patches(update):
            yield event(patch)
        if update.status != "streaming":
            stored = await run_sync(serializer.turn, answer, language)
            yield event({**drawn.end(update, language), **(stored or {})}, "end")
