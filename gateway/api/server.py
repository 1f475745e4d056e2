"""Uvicorn inside our own task: on the unix socket of the state folder, or on a TCP address."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import uvicorn
from fastapi import FastAPI

BACKLOG: Final = 128
SOCKET_RIGHTS: Final = 0o600
"""only the user that runs the gateway, and root: file rights are the authority"""


class _Server(uvicorn.Server):
    """A server that leaves signals to the gateway."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of the server's certificate and key, and of the authorities whose clients are let in;
    without these any client is."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 at least. OSError where a file cannot be read or is not what it should be."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(self.certificate, self.key)
        if self.client_authorities is not None:
            made.load_verify_locations(self.client_authorities)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


class HttpServer:
    """One application on one socket: bound when made, so that a wrong address shows at once."""

    def __init__(self, app: FastAPI, bound: socket.socket, address: str, tls: Tls | None = None) -> None:
        self.address = address
        self._socket = bound
        context = None if tls is None else tls.context()
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
                ssl_context_factory=None if context is None else lambda config, usual: context,
            )
        )

    @classmethod
    def on_socket(cls, app: FastAPI, path: Path) -> Self:
        """On a unix socket that only its owner may open; a file left there by a killed gateway goes."""
        path.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o777 & ~SOCKET_RIGHTS)
        try:
            bound.bind(str(path))
        finally:
            os.umask(mask)
        bound.listen(BACKLOG)
        return cls(app, bound, str(path))

    @classmethod
    def on_tcp(cls, app: FastAPI, host: str, port: int, tls: Tls | None = None) -> Self:
        """On `host:port` (0: a free one). OSError where the address cannot be had, or a file of `tls`
        read."""
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
        host, port = bound.getsockname()[:2]
        try:
            return cls(app, bound, f"{host}:{port}", tls)
        except OSError:
            bound.close()
            raise

    async def serve(self) -> None:
        """Answer until `stop`; what is being answered then has a second to end."""
        with contextlib.closing(self._socket):
            await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Make `serve` end."""
        self._server.should_exit = True
