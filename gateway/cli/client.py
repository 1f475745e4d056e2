"""The running gateway, asked over its unix socket. The socket's file rights decide who may."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import httpx

from gateway.cli.invocation import NoGateway, requester
from gateway.errors import LingdianError
from gateway.state import State

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 3600.0
"""An archive of 2,040 meters over a slow link with repeats; the gateway's own deadlines are far shorter."""


Query = Mapping[str, str | float | list[str]]


class Refusal(LingdianError):
    """The gateway's answer is an error; kind: its stable word (`terminal-absent` …)."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind


class Gateway:
    """Calls to the gateway of one state folder. NoGateway where none runs, Refusal where it says no."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(state.socket)),
            base_url="http://gateway",
            headers={"x-requester": requester()},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_SECONDS)
                probe.connect(str(self._state.socket))
        except PermissionError as error:
            raise NoGateway(
                f"the gateway on {self._state.folder} belongs to another user 无权访问: run this as its user"
            ) from error
        except OSError as error:
            raise NoGateway(
                f"no gateway runs on {self._state.folder} 网关未运行: start one with `lingdian serve`,"
                " or name its folder with --state"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: str | float | list[str]) -> Any:
        """The JSON answer to GET."""
        return self._call("GET", path, query=query)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer to POST."""
        return self._call("POST", path, body=body if body is not None else {})

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | float | list[str]] | None = None,
        body: Any = None,
    ) -> Any:
        try:
            response = self._http.request(method, path, params=query, json=body)
        except httpx.HTTPError as error:
            raise NoGateway(f"the gateway went away while it was asked 网关连接中断: {error}") from error
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            try:
                problem = response.json()
            except ValueError:
                problem = {}
            raise Refusal(
                response.status_code,
                str(problem.get("type", "")).rpartition(":")[2],
                str(problem.get("detail") or f"the gateway answered {response.status_code}"),
            )
        return response.json()
