"""The running gateway, asked over its unix socket, whose file rights decide who may; or with a token."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import httpx

from gateway.cli.invocation import NoGateway, requester
from gateway.errors import ConfigurationError, LingdianError
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


class Afar(NamedTuple):
    """A gateway on another machine. Who vouches for it besides those that are trusted anyway stands in the
    file that SSL_CERT_FILE names."""

    url: str
    token: str

    def checked(self) -> Self:
        """ConfigurationError where the token would be lacking, or be sent in the clear."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"--url wants https://HOST:PORT 网址无效, not {self.url}")
        if parts.scheme == "http" and not _this_machine(parts.hostname):
            raise ConfigurationError("a token goes over https only 令牌须经 https 发送: --url https://…")
        if not self.token:
            raise ConfigurationError(
                "--url needs a token 缺少令牌: in LINGDIAN_TOKEN, or in a file that --token-file names"
            )
        return self


def _this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gateway:
    """Calls to the gateway of one state folder, or to one afar. NoGateway where none runs, Refusal where it
    says no."""

    def __init__(self, state: State, afar: Afar | None = None, *, name: str | None = None) -> None:
        """name: who asks, in ASCII; by default the user. A gateway afar goes by the token instead."""
        self._state = state
        self._afar = afar
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        if afar is None:
            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=str(state.socket)),
                base_url="http://gateway",
                headers={"x-requester": name or requester()},
                timeout=timeout,
            )
            return
        self._http = httpx.Client(
            base_url=afar.checked().url,
            headers={"authorization": f"Bearer {afar.token}"},
            timeout=timeout,
        )

    def __enter__(self) -> Self:
        if self._afar is not None:
            return self
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

    def within(self, seconds: float) -> Self:
        """Wait for each answer so long at most; then it counts as gone (NoGateway)."""
        self._http.timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        return self

    def get(self, path: str, **query: str | float | list[str]) -> Any:
        """The JSON answer to GET."""
        return self._call("GET", path, query=query)

    def post(self, path: str, body: dict[str, Any] | None = None, *, key: str | None = None) -> Any:
        """The JSON answer to POST. key: the idempotency key of what may be asked once only."""
        return self._call("POST", path, body=body if body is not None else {}, key=key)

    def file(self, path: str) -> bytes:
        """The answer to GET as it came."""
        return self._answer("GET", path).content

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | float | list[str]] | None = None,
        body: Any = None,
        key: str | None = None,
    ) -> Any:
        return self._answer(method, path, query=query, body=body, key=key).json()

    def _answer(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | float | list[str]] | None = None,
        body: Any = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = {} if key is None else {"idempotency-key": key}
        try:
            response = self._http.request(method, path, params=query, json=body, headers=headers)
        except httpx.ConnectError as error:
            if self._afar is None:
                raise NoGateway(f"the gateway went away while it was asked 网关连接中断: {error}") from error
            raise NoGateway(f"no gateway answers at {self._afar.url} 网关无法连接: {error}") from error
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
        return response
