"""The web application: API, health, metrics, and the pages mounted beside them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.middleware.sessions import SessionMiddleware

from app.service import Service
from app.settings import Settings, session_secret
from app.web.body import BodyLimit
from app.web.feedback_api import feedback_router
from app.web.identity import SESSION_SECONDS, AnonymousIdentity
from app.web.openai_api import openai_router
from app.web.refusals import add_refusals


def build_app(service: Service, mount_pages: Callable[[FastAPI], None]) -> FastAPI:
    """Everything the server answers; `mount_pages` adds the browser's pages."""
    app = FastAPI(title="Burnish", docs_url="/docs", redoc_url=None)
    app.add_middleware(AnonymousIdentity)
    app.add_middleware(
        SessionMiddleware,
        secret_key=session_secret(service.workspace.home),
        session_cookie="burnish_session",
        max_age=SESSION_SECONDS,
        same_site="lax",
    )
    app.add_middleware(BodyLimit)
    add_refusals(app)
    app.include_router(openai_router(service))
    app.include_router(feedback_router(service))
    _add_health(app, service)
    mount_pages(app)
    return app


def operator_check(settings: Settings) -> Callable[[Request], str | None]:
    """Who may see the console: anyone on this machine, or whoever knows the password."""
    basic = HTTPBasic(auto_error=False)

    async def check(request: Request) -> str | None:
        if settings.operator_password is None:
            return "operator"
        credentials: HTTPBasicCredentials | None = await basic(request)
        wanted = settings.operator_password.get_secret_value().encode()
        given = credentials.password.encode() if credentials else b""
        if not secrets.compare_digest(given, wanted):
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
        return "operator"

    return check  # type: ignore[return-value]  # gradio takes both kinds of function


def _add_health(app: FastAPI, service: Service) -> None:
    metrics = CollectorRegistry()
    active = Gauge("burnish_active_streams", "Answers running or waiting", registry=metrics)
    active.set_function(lambda: service.engine.active_streams)
    counts = Gauge("burnish_feedback", "Stored records by kind", ["kind"], registry=metrics)
    generation = Gauge("burnish_live_generation", "Changes of the live release", registry=metrics)
    generation.set_function(lambda: service.workspace.registry.live().generation)

    # On the event loop itself, so that they answer even when every worker thread is taken

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        ready = service.engine.alive
        body = {"status": "ready" if ready else "engine down", "live": service.slots.live}
        return JSONResponse(body, 200 if ready else 503)

    @app.get("/metrics")
    def prometheus() -> PlainTextResponse:
        for kind, count in service.workspace.store.counts().items():
            counts.labels(kind).set(count)
        return PlainTextResponse(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)
