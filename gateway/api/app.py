"""The two faces of the HTTP interface: by file rights on the unix socket, by token on TCP."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.api import (
    collections,
    control_blocks,
    events,
    meters,
    problems,
    relay_commands,
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
    return app


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
