"""The web application: API, health, and the pages mounted beside them."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from app.answering.live_answers import LiveAnswers
from app.service import Service
from app.settings import session_secret
from app.web.anthropic.api import anthropic_router
from app.web.api_paths import add_api_fallback
from app.web.auth.accounts_api import accounts_router
from app.web.auth.identity import Identity
from app.web.auth.origins import AllowedHosts, CrossOriginProtection
from app.web.auth.people_api import people_router
from app.web.body import BodyLimit
from app.web.chat import documents_api, import_api
from app.web.chat.api import chat_router
from app.web.chat.feedback_api import feedback_router
from app.web.chat.my_feedback_api import my_feedback_router
from app.web.chat.prompts_api import prompts_router
from app.web.chat.tools_api import tools_router
from app.web.error_responses import add_error_handlers
from app.web.headers import ScriptNonces
from app.web.metrics import metrics_router
from app.web.openai.api import openai_router
from app.web.openai.completion_feedback_api import completion_feedback_router
from app.web.openai.embeddings_api import embeddings_router
from app.web.openai.text_completions_api import text_completions_router
from app.web.response_schemas import (
    ANY_ERRORS,
    ENGINE_ERRORS,
    MESSAGE_ERRORS,
    METRICS_ERRORS,
    STORE_ERRORS,
    Readiness,
)
from app.web.responses.api import responses_router

# Headers that clients of Anthropic's API send from pages of other origins
ANTHROPIC_HEADERS = ("X-Api-Key", "Anthropic-Version", "Anthropic-Beta")


def build_app(service: Service, mount_pages: Callable[[FastAPI], None]) -> FastAPI:
    """Return the whole application; `mount_pages` adds the browser's pages."""
    app = FastAPIOffline(title="Burnish", docs_url="/docs", redoc_url=None, responses=ANY_ERRORS)
    _add_middleware(app, service)
    add_error_handlers(app)
    app.include_router(openai_router(service), responses=ENGINE_ERRORS)
    app.include_router(text_completions_router(service), responses=ENGINE_ERRORS)
    app.include_router(embeddings_router(service), responses=ENGINE_ERRORS)
    app.include_router(responses_router(service), responses=ENGINE_ERRORS)
    app.include_router(anthropic_router(service), responses=MESSAGE_ERRORS)
    app.include_router(completion_feedback_router(service), responses=STORE_ERRORS)
    app.include_router(feedback_router(service), responses=STORE_ERRORS)
    app.include_router(prompts_router(service))
    app.include_router(tools_router(service))
    app.include_router(documents_api.documents_router(service), responses=STORE_ERRORS)
    live = LiveAnswers(service.workspace.settings.max_unfinished)
    app.include_router(chat_router(service, live))
    app.include_router(import_api.import_router(service))
    app.include_router(my_feedback_router(service, live))
    app.include_router(people_router(service.workspace))
    if service.workspace.settings.has_accounts:
        app.include_router(accounts_router(service.workspace))
    _add_health(app, service)
    app.include_router(metrics_router(service), responses=METRICS_ERRORS)
    add_api_fallback(app)
    mount_pages(app)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add the middleware of all routes, gradio's included; the last one added runs first."""
    settings = service.workspace.settings
    app.add_middleware(
        Identity,
        accounts=service.workspace.accounts,
        settings=settings,
        secret_key=session_secret(service.workspace.home),
    )
    app.add_middleware(ScriptNonces)
    limits = {
        import_api.PATH: import_api.MAX_IMPORT_BYTES,
        documents_api.DOCUMENTS_PATH: documents_api.MAX_UPLOAD_BYTES,
    }
    app.add_middleware(BodyLimit, paths=limits)
    app.add_middleware(CrossOriginProtection, origins=settings.allowed_origins)
    # Gradio adds its own CORS policy unless the application has one
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_headers=["Authorization", "Content-Type", *ANTHROPIC_HEADERS],
        allow_methods=["GET", "POST", "PUT", "DELETE"],
    )
    app.add_middleware(AllowedHosts, names=(*settings.allowed_hosts, settings.host))


def _add_health(app: FastAPI, service: Service) -> None:
    # Async, so that they answer even when every worker thread is busy

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz() -> JSONResponse:
        status = (
            "engine down"
            if not service.engine.alive
            else "shutting down"
            if service.chat.running.refusing
            else "ready"
        )
        body = {"status": status, "live": service.slots.live}
        return JSONResponse(body, 200 if status == "ready" else 503)
