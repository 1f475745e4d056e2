"""The two faces of the HTTP interface: everything on the unix socket, health and status on TCP."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.api import collections, meters, problems, terminals
from gateway.api.parts import Parts, Wanted

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def full(parts: Parts) -> FastAPI:
    """All routes. For the unix socket only: whoever may open it may do everything."""
    app = _common(parts)
    for router in (
        collections.reading,
        collections.acting,
        terminals.reading,
        terminals.acting,
        meters.acting,
    ):
        app.include_router(router)
    return app


def status_only(parts: Parts) -> FastAPI:
    """Routes that change nothing and ask nobody. For TCP, where no one shows who they are."""
    app = _common(parts)
    for router in (collections.reading, terminals.reading):
        app.include_router(router)
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
