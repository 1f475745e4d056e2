"""The two faces of the HTTP interface: by file rights on the unix socket, by token on TCP."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.api import (
    collections,
    control_blocks,
    events,
    meters,
    problems,
    relay_batches,
    relay_commands,
    relay_evidence,
    relay_tickets,
    stream,
    switches,
    terminals,
    webhooks,
)
from gateway.api.auth import Authority
from gateway.api.parts import Parts, Wanted

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


ROUTERS: Final = (
    collections.reading,
    collections.acting,
    terminals.reading,
    terminals.acting,
    meters.acting,
    events.reading,
    events.acting,
    relay_commands.reading,
    relay_commands.acting,
    relay_batches.reading,
    relay_batches.acting,
    relay_evidence.reading,
    relay_tickets.reading,
    relay_tickets.acting,
    control_blocks.reading,
    control_blocks.acting,
    switches.reading,
    switches.acting,
    webhooks.reading,
    webhooks.acting,
    stream.reading,
)


def full(parts: Parts) -> FastAPI:
    """All routes for the unix socket: whoever may open it may do everything."""
    return _made(parts, Authority.SOCKET)


def by_token(parts: Parts, *, private: bool) -> FastAPI:
    """All routes for TCP. Health is anybody's; the rest is for whoever holds a token with the scope for it.

    private: nobody on the way can read a token (TLS, or this machine alone). Else no token is taken.
    """
    return _made(parts, Authority.TOKEN if private else Authority.NONE)


def _made(parts: Parts, authority: Authority) -> FastAPI:
    app = _common(parts)
    app.state.authority = authority
    for router in ROUTERS:
        app.include_router(router, responses=problems.ANSWERS)
    app.openapi = partial(_described, app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1: what FastAPI finds, what a problem looks like, and the header that only we insist on
    (its lack is 400 and not 422)."""
    if app.openapi_schema is None:
        told = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        told["components"]["schemas"]["ProblemDetails"] = problems.ProblemDetails.model_json_schema()
        for parameter in told["paths"][relay_commands.PREFIX]["post"]["parameters"]:
            if parameter["name"] == relay_commands.KEY_HEADER:
                parameter |= {"required": True, "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"}}
        app.openapi_schema = told
    return app.openapi_schema


def _common(parts: Parts) -> FastAPI:
    app = FastAPI(
        title="Lingdian",
        version=version("lingdian"),
        summary="Head-end for electricity meters",
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    problems.install(app)

    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process lives and its loop turns."""
        return "ok\n"

    @app.get("/readyz", tags=["health"])
    async def readyz(parts: Wanted) -> JSONResponse:
        """200 while terminals and database are served, else 503 with the reason."""
        reason = parts.not_ready()
        body: dict[str, Any] = {
            "ready": reason is None,
            "reason": reason,
            "sessions": sum(1 for _ in parts.registry.sessions()),
        }
        return JSONResponse(body, status_code=200 if reason is None else 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(parts: Wanted) -> Response:
        """For Prometheus."""
        return Response(parts.metrics.exposition(), media_type=EXPOSITION)

    return app
