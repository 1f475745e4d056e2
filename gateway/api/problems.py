"""Errors of the HTTP interface, as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.errors import InputError, LingdianError, LinkClosed, StorageError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:lingdian:problem:"


class Problem(Exception):
    """An answer that is an error. kind: a stable word for programs; detail: what an operator should know."""

    def __init__(self, status: HTTPStatus, kind: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.extra = extra


def install(app: FastAPI) -> None:
    """Make every error that leaves `app` a problem; nothing unexpected shows its inside."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return _answer(error.status, error.kind, error.detail, **error.extra)

    @app.exception_handler(InputError)
    async def _input(request: Request, error: InputError) -> JSONResponse:
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "not-possible", str(error))

    @app.exception_handler(LinkClosed)
    async def _link(request: Request, error: LinkClosed) -> JSONResponse:
        return _answer(
            HTTPStatus.SERVICE_UNAVAILABLE, "terminal-absent", f"the terminal's link ended 终端掉线: {error}"
        )

    @app.exception_handler(StorageError)
    async def _storage(request: Request, error: StorageError) -> JSONResponse:
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "database", str(error))

    @app.exception_handler(LingdianError)
    async def _other(request: Request, error: LingdianError) -> JSONResponse:
        return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", str(error))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [
            {"where": ".".join(str(part) for part in fault["loc"]), "what": fault["msg"]}
            for fault in error.errors()
        ]
        said = "; ".join(f"{fault['where']}: {fault['what']}" for fault in wrong)
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "bad-request", said, errors=wrong)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return _answer(status, status.phrase.lower().replace(" ", "-"), str(error.detail))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        # the trace is in the log (the server writes it); a client learns only that it happened
        return _answer(
            HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected", "unexpected error; the log has the trace"
        )


def _answer(status: HTTPStatus, kind: str, detail: str, **extra: Any) -> JSONResponse:
    body = {"type": TYPE_PREFIX + kind, "title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(body | extra, status_code=status.value, media_type=MEDIA_TYPE)
