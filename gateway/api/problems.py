"""Errors of the HTTP interface, as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from gateway.control.ask import KeyReused, NoSuch, NotNow, NotYou, Unfit
from gateway.errors import InputError, LingdianError, LinkClosed, StorageError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:lingdian:problem:"


class Problem(Exception):
    """An answer that is an error. kind: a stable word for programs; detail: what an operator should know."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.extra = extra


class ProblemDetails(BaseModel):
    """RFC 9457; the description of the interface names it for every error."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str


ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "A problem 出错",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    },
}
"""`responses` of every route."""


def install(app: FastAPI) -> None:
    """Make every error that leaves `app` a problem; nothing unexpected shows its inside."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return _answer(error.status, error.kind, error.detail, headers=error.headers, **error.extra)

    @app.exception_handler(Unfit)
    async def _unfit(request: Request, error: Unfit) -> JSONResponse:
        why = None if error.why is None else error.why.value
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "not-possible", str(error), why=why)

    @app.exception_handler(KeyReused)
    async def _key_reused(request: Request, error: KeyReused) -> JSONResponse:
        return _answer(HTTPStatus.CONFLICT, "key-reused", str(error))

    @app.exception_handler(NotNow)
    async def _not_now(request: Request, error: NotNow) -> JSONResponse:
        return _answer(HTTPStatus.CONFLICT, "not-now", str(error))

    @app.exception_handler(NotYou)
    async def _not_you(request: Request, error: NotYou) -> JSONResponse:
        return _answer(HTTPStatus.CONFLICT, "another-person-needed", str(error))

    @app.exception_handler(NoSuch)
    async def _no_such(request: Request, error: NoSuch) -> JSONResponse:
        return _answer(HTTPStatus.NOT_FOUND, "not-found", str(error))

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


def _answer(
    status: HTTPStatus, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
) -> JSONResponse:
    body = {"type": TYPE_PREFIX + kind, "title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(
        body | extra,
        status_code=status.value,
        media_type=MEDIA_TYPE,
        headers=None if headers is None else dict(headers),
    )
