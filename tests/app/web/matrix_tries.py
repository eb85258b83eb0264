"""The tries of the two-person matrix: what Bob sends to each route, and the status that he gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.app.web.test_identity import PASSWORD

WORDS = "sesame-of-ann"
OTHER = {"password": "x", "again": "y", "old": PASSWORD}
FORBIDDEN, UNKNOWN, OWN, LED, REFUSED = 403, 404, 200, 303, 400


@dataclass(frozen=True)
class Try:
    """What Bob sends, and the status that he gets: 200 is about himself alone."""

    status: int
    body: Any = None
    query: str = ""
    form: Mapping[str, str] | None = None


IN_ANNS = {"question": "And?", "conversation_id": "{conversation_id}"}
AFTER_ANNS = {"question": "And?", "parent_answer_id": "{answer_id}"}
LETTER = {"kind": "saved", "title": "Mine", "text": "Now mine."}
RAW = {"model": "base", "prompt": "Once", "max_tokens": 2}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
UNANSWERED = {"messages": [{"role": "user", "content": "Hi"}]}
TWO = {"left": "{answer_id}", "right": "{other_answer_id}"}
# (method, path): the tries. A path's parameters, and names in braces in a body, are Ann's ids
MATRIX: dict[tuple[str, str], list[Try]] = {
    ("GET", "/v1/models"): [Try(OWN)],
    ("GET", "/v1/models/{model}"): [Try(OWN)],
    ("POST", "/v1/chat/completions"): [Try(OWN, CHAT)],
    ("POST", "/v1/completions"): [Try(OWN, RAW)],
    ("POST", "/v1/embeddings"): [Try(OWN, {"model": "base", "input": "Hi"})],
    ("POST", "/v1/responses"): [
        Try(OWN, {"model": "base", "input": "Hi", "max_output_tokens": 16}),
        Try(UNKNOWN, {"model": "base", "input": "And?", "previous_response_id": "{response_id}"}),
    ],
    ("GET", "/v1/responses/{response_id}"): [Try(UNKNOWN)],
    ("POST", "/v1/messages"): [Try(OWN, {"model": "base", **CHAT})],
    ("POST", "/v1/messages/count_tokens"): [Try(OWN, {"model": "base", **UNANSWERED})],
    ("POST", "/v1/feedback"): [
        Try(UNKNOWN, {"completion_id": "{answer_id}", "vote": -1}),
        Try(UNKNOWN, {"completion_id": "{answer_id}", "correction": "Bob's"}),
    ],
    ("GET", "/v1/feedback/{completion_id}"): [Try(UNKNOWN)],
    ("DELETE", "/v1/feedback/{completion_id}"): [Try(UNKNOWN)],
    ("GET", "/api/documents"): [Try(OWN)],
    ("POST", "/api/documents"): [
        Try(OWN, "Bob's notes", query="?collection=Notes&name=notes.txt")  # as Ann's are called
    ],
    ("DELETE", "/api/documents/{document_id}"): [Try(UNKNOWN)],
    ("GET", "/api/documents/search"): [Try(OWN, query="?collection=Notes&question=sesame")],
    ("GET", "/api/answers/{answer_id}"): [Try(UNKNOWN)],
    ("POST", "/api/answers/{answer_id}/vote"): [Try(UNKNOWN, {"vote": -1})],
    ("POST", "/api/answers/{answer_id}/correction"): [Try(UNKNOWN, {"text": "Bob's"})],
    ("POST", "/api/answers/{answer_id}/copy"): [Try(UNKNOWN, {})],
    ("POST", "/api/answers/{answer_id}/flag"): [Try(UNKNOWN, {})],
    ("POST", "/api/comparisons"): [Try(UNKNOWN, TWO)],
    ("POST", "/api/comparisons/{comparison_id}/choice"): [Try(UNKNOWN, {"choice": "right"})],
    ("GET", "/api/consent"): [Try(OWN)],
    ("PUT", "/api/consent"): [Try(OWN, {"allowed": False})],
    ("GET", "/chat/boot"): [Try(OWN)],
    ("GET", "/chat/conversations"): [Try(OWN), Try(OWN, query=f"?words={WORDS}")],
    ("GET", "/chat/conversations/{conversation_id}"): [Try(UNKNOWN)],
    ("POST", "/chat/conversations/{conversation_id}"): [
        Try(UNKNOWN, {"title": "Bob's"}),
        Try(UNKNOWN, {"pinned": True}),
        Try(UNKNOWN, {"answer": "{other_answer_id}"}),
        Try(UNKNOWN, {}),
    ],
    ("DELETE", "/chat/conversations/{conversation_id}"): [Try(UNKNOWN)],
    ("POST", "/chat/conversations/{conversation_id}/restore"): [Try(UNKNOWN, {})],
    ("GET", "/chat/conversations/{conversation_id}/export"): [
        Try(UNKNOWN),
        Try(UNKNOWN, query="?form=json"),
    ],
    ("POST", "/chat/questions"): [Try(UNKNOWN, IN_ANNS), Try(UNKNOWN, AFTER_ANNS)],
    ("POST", "/chat/answers/{answer_id}/again"): [
        Try(UNKNOWN, {}),
        Try(UNKNOWN, {"change": "shorter", "instruction": "Shorter"}),
        Try(UNKNOWN, {"to_compare": True}),
    ],
    ("POST", "/chat/answers/{answer_id}/continue"): [Try(UNKNOWN, {})],
    ("POST", "/chat/answers/{answer_id}/now"): [Try(UNKNOWN, {})],
    ("GET", "/chat/answers/{answer_id}/stream"): [Try(UNKNOWN)],
    ("POST", "/chat/answers/{answer_id}/stop"): [Try(UNKNOWN, {})],
    ("POST", "/chat/waiting/{waiting_id}/choice"): [Try(UNKNOWN, {"choice": "left"})],
    ("GET", "/chat/answers/{answer_id}"): [Try(UNKNOWN)],
    ("POST", "/chat/answers/{answer_id}/offer"): [Try(UNKNOWN, {})],
    ("GET", "/chat/tools"): [Try(OWN)],
    ("PUT", "/chat/tools/{tool_name}"): [Try(OWN, {"allowed": False})],  # of his own answers
    ("GET", "/chat/prompts"): [Try(OWN)],
    ("POST", "/chat/prompts"): [Try(OWN, LETTER)],
    ("PUT", "/chat/prompts/{prompt_id}"): [Try(UNKNOWN, LETTER)],
    ("DELETE", "/chat/prompts/{prompt_id}"): [Try(UNKNOWN)],
    ("POST", "/chat/import"): [Try(REFUSED, [])],  # no conversations are in it
    ("GET", "/chat/feedback"): [Try(OWN)],
    ("GET", "/chat/feedback/{event_id}"): [Try(UNKNOWN)],
    ("GET", "/chat/examples"): [Try(OWN)],
    ("DELETE", "/chat/examples/{answer_id}"): [Try(UNKNOWN)],
    ("POST", "/chat/examples/{answer_id}/restore"): [Try(OWN, {})],
    ("GET", "/chat/answers/{answer_id}/examples"): [Try(UNKNOWN)],
    ("GET", "/chat/person/data"): [Try(OWN)],
    ("POST", "/chat/person/forget"): [Try(OWN, {})],
    ("GET", "/account/login"): [Try(LED)],
    ("POST", "/account/login"): [Try(401, form={"name": "ann", "password": "a guess"})],
    ("GET", "/account/link"): [Try(UNKNOWN, query="?token=guess")],
    ("POST", "/account/link"): [Try(UNKNOWN, form={"token": "guess", **OTHER})],
    ("GET", "/account/provider"): [Try(FORBIDDEN)],  # it does not answer
    ("GET", "/account/callback"): [Try(FORBIDDEN, query="?code=guess&state=guess")],
    ("GET", "/account/adopt"): [Try(LED)],
    ("POST", "/account/adopt"): [Try(LED, form={"keep": "yes"})],
    ("GET", "/account"): [Try(OWN)],
    ("POST", "/account/logout"): [Try(LED, form={})],
    ("POST", "/account/sessions/end"): [Try(LED, form={})],
    ("POST", "/account/sessions/{session_id}/end"): [Try(UNKNOWN, form={})],
    ("POST", "/account/password"): [Try(REFUSED, form=OTHER)],
    ("POST", "/account/keys"): [Try(OWN, form={"scope": "chat"})],
    ("POST", "/account/keys/{key_id}/revoke"): [Try(UNKNOWN, form={})],
    ("GET", "/healthz"): [Try(OWN)],
    ("GET", "/readyz"): [Try(OWN)],
    ("GET", "/metrics"): [Try(FORBIDDEN)],
    ("GET", "/openapi.json"): [Try(OWN)],
    ("GET", "/docs"): [Try(OWN)],
    ("GET", "/docs/oauth2-redirect"): [Try(OWN)],
    ("GET", "/console"): [Try(FORBIDDEN)],
    ("GET", "/console/compare"): [Try(FORBIDDEN)],
    ("GET", "/console/comparisons"): [Try(FORBIDDEN)],
    ("GET", "/console/evaluations/{evaluation}"): [Try(FORBIDDEN)],
    ("GET", "/console/comparisons/texts"): [Try(FORBIDDEN)],
    ("POST", "/console/comparisons/{waiting_id}/choice"): [Try(FORBIDDEN, {"choice": "left"})],
    ("POST", "/console/comparisons/{waiting_id}/skip"): [Try(FORBIDDEN, {})],
    ("POST", "/console/comparisons/{waiting_id}/undo"): [Try(FORBIDDEN, {})],
    ("GET", "/console/drafts"): [Try(FORBIDDEN)],
    ("GET", "/console/drafts/waiting"): [Try(FORBIDDEN)],
    ("POST", "/console/drafts/{draft_id}/approve"): [
        Try(FORBIDDEN, {"question": "Bob's?", "answer": "Bob's."})
    ],
    ("POST", "/console/drafts/{draft_id}/drop"): [Try(FORBIDDEN, {})],
    ("POST", "/console/drafts/{draft_id}/undo"): [Try(FORBIDDEN, {})],
    ("GET", "/console/inbox"): [Try(FORBIDDEN)],
    ("POST", "/console/inbox/{event_id}/look_at"): [Try(FORBIDDEN, {})],
    ("POST", "/console/inbox/{event_id}/put_back"): [Try(FORBIDDEN, {})],
    ("GET", "/console/people"): [Try(FORBIDDEN)],
    ("POST", "/console/people/invite"): [Try(FORBIDDEN, form={"role": "operator"})],
    ("POST", "/console/people/keys/{key_id}/revoke"): [Try(FORBIDDEN, form={})],
    ("POST", "/console/people/{account_id}/role"): [Try(FORBIDDEN, form={"role": "operator"})],
    ("POST", "/console/people/{account_id}/reset"): [Try(FORBIDDEN, form={})],
    ("POST", "/console/people/{account_id}/sign_out"): [Try(FORBIDDEN, form={})],
    ("POST", "/console/people/{account_id}/disable"): [Try(FORBIDDEN, form={})],
    ("POST", "/console/people/{account_id}/enable"): [Try(FORBIDDEN, form={})],
    ("POST", "/console/inbox/alerts/{alert_id}/look_at"): [Try(FORBIDDEN, {})],
    ("POST", "/console/inbox/alerts/{alert_id}/put_back"): [Try(FORBIDDEN, {})],
}
# Gradio's: the chat page has no events, and the console none for Bob. What of them reads a session
# is bound to the person (test_page_sessions.py)
GRADIO = {
    ("GET", ""),
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/config/"),
    ("GET", "/theme.css"),
    ("GET", "/favicon.ico"),
    ("GET", "/manifest.json"),
    ("GET", "/robots.txt"),
    ("GET", "/assets/{path:path}"),
    ("GET", "/static/{path:path}"),
    ("GET", "/svelte/{path:path}"),
    ("POST", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/queue/data"),
    ("POST", "/gradio_api/run/{api_name}"),
    ("POST", "/gradio_api/run/{api_name}/"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/reset"),
    ("POST", "/gradio_api/reset/"),
    ("GET", "/gradio_api/startup-events"),
    ("GET", "/gradio_api/heartbeat/{session_hash}"),
}
