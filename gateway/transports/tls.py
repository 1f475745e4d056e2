"""TLS over any other link, with certificates on both sides.

OpenSSL works on two buffers in memory here, and the link beneath carries what it makes. The event loops' own
TLS holds a quarter of a megabyte for each connection, keeps bytes back in buffers of its own, so that
`write_now` could promise nothing, and shakes hands with as many as come.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import ConfigurationError, LinkClosed
from gateway.metrics import Handshake, Metrics
from gateway.transports import tcp_client, tcp_listener
from gateway.transports.link import Certificate, Link, Settle, Taken, settled
from gateway.transports.tcp import TcpLimits

log = structlog.get_logger()

CHUNK: Final = 2048
"""As for TCP: most bytes that one read gives."""

HANDSHAKE_RECORD: Final = 0x16
"""What the first byte of every TLS connection is."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files (PEM) of our certificate, with its chain, and key, and of the authorities whose peers are let in;
    without these any peer is, and none is certified."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None
    handshake_deadline_s: float = 20.0
    """over 2G it takes two or three round trips of a second or more"""
    handshakes: int = 1000
    """under way at once; one more is closed. They are worked on one after another in any case"""

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 at least. ConfigurationError where a file cannot be read or is not what it should be."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        # Who resumes a session shows no certificate: each connection proves itself anew.
        made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        made.num_tickets = 0
        _load_own(made, self.certificate, self.key)
        if self.client_authorities is not None:
            _load_authorities(made, self.client_authorities)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files (PEM) of the authorities that we trust and, where peers ask for it, our certificate and key."""

    authorities: Path | None = None
    """None: those of this machine"""
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None
    """must stand in the peer's certificate; None: the host that is dialled"""
    handshake_deadline_s: float = 20.0

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 at least. ConfigurationError where a file cannot be read or is not what it should be."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.options |= ssl.OP_NO_RENEGOTIATION
        if self.authorities is not None:
            _load_authorities(made, self.authorities)
        else:
            made.load_default_certs()
        if self.certificate is not None and self.key is not None:
            _load_own(made, self.certificate, self.key)
        elif self.certificate is not None or self.key is not None:
            raise ConfigurationError("a TLS certificate and its key go together 证书与私钥须同时给出")
        return made


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # without this a sealed key would be asked for at a terminal that nobody sits at
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS certificate {certificate} with key {key} cannot be used 证书或私钥无法使用: {_said(error)};"
            " both are PEM, the key without a password, and they belong together"
        ) from error


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS authorities {file} cannot be used 证书颁发机构文件无法使用: {_said(error)}; PEM is wanted"
        ) from error


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class HandshakeFailed(LinkClosed):
    """TLS did not come to stand; `reason` for the counters."""

    def __init__(self, message: str, reason: Handshake) -> None:
        super().__init__(message)
        self.reason: Handshake = reason


class TlsLink:
    """A link inside another; satisfies `Link`. Made by `listen` and `connect`.

    `waiting` and `unsent` count what stands sealed as its sealed bytes: some more than they carry.
    """

    def __init__(self, link: Link, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        """name: as client, who must stand in the peer's certificate."""
        self.peer = link.peer
        self.source = link.source
        self.certified_as: Certificate | None = None
        self.only_for: frozenset[str] | None = None
        """see `listen`, binding"""
        self._link = link
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self._ended = False

    async def shake_hands(self, deadline_s: float, turn: asyncio.Lock) -> None:
        """Agree on keys and see the certificate. turn: held for the work of each step, which takes a
        millisecond, so that a thousand of them do not stop the links that stand.

        Raises HandshakeFailed; then the link beneath is of no use any more.
        """
        first = -1
        try:
            async with asyncio.timeout(deadline_s):
                while not await self._step(turn):
                    data, _ = await self._link.read()
                    first = data[0] if first < 0 else first
                    self._incoming.write(data)
        except TimeoutError:
            raise HandshakeFailed(f"{self.peer}: no TLS within {deadline_s:g} s", "deadline") from None
        except ssl.SSLError as error:
            raise self._failed(error, first) from error
        except LinkClosed as error:
            raise HandshakeFailed(f"{error}, before TLS stood", "broken") from error
        shown = self._tls.getpeercert()
        whole = self._tls.getpeercert(binary_form=True)
        if shown and whole:
            self.certified_as = _certificate(shown, whole)

    async def _step(self, turn: asyncio.Lock) -> bool:
        """Is it done?"""
        done = True
        async with turn:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                with contextlib.suppress(LinkClosed):
                    await self._send_sealed()  # the alert that tells the peer why
                raise
            await asyncio.sleep(0)
        await self._send_sealed()
        return done

    def _failed(self, error: ssl.SSLError, first: int) -> HandshakeFailed:
        code = error.reason or ""
        if first not in (-1, HANDSHAKE_RECORD, 0x15):
            reason: Handshake = "not_tls"
        elif "CERTIFICATE" in code or "UNKNOWN_CA" in code:
            reason = "certificate"
        else:
            reason = "protocol"
        said = getattr(error, "verify_message", "") or code.replace("_", " ").lower() or str(error)
        return HandshakeFailed(f"{self.peer}: no TLS 无法建立加密连接: {said}", reason)

    async def _send_sealed(self) -> None:
        """What OpenSSL has made leaves in its order: nothing is awaited between taking and handing over."""
        if self._outgoing.pending:
            await self._link.write(self._outgoing.read())

    # what the house calls

    @property
    def waiting(self) -> int:
        """See `Link.waiting`."""
        return self._tls.pending() + self._incoming.pending + self._link.waiting

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: at most CHUNK bytes a call."""
        if self._tls.pending() or self._incoming.pending:
            await asyncio.sleep(0)
        while not self._ended:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._send_sealed()  # an answer of TLS itself, to new keys for example
                sealed, _ = await self._link.read()
                self._incoming.write(sealed)
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self.abort()
                raise LinkClosed(
                    f"{self.peer}: TLS has broken 加密连接中断: {error.reason or error}"
                ) from error
            if data:
                return data, settled
            self._ended = True
        raise LinkClosed(f"{self.peer} has closed the link")

    async def write(self, data: bytes) -> None:
        """See `Link.write`."""
        self._seal(data)
        await self._send_sealed()

    def _seal(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            self.abort()
            raise LinkClosed(f"{self.peer}: TLS has broken 加密连接中断: {error.reason or error}") from error

    @property
    def unsent(self) -> int:
        """See `Link.unsent`."""
        return self._outgoing.pending + self._link.unsent

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`: as good as the link beneath. Sealed bytes of which a part has left may be
        records of which the peer can open the first: PERHAPS."""
        if self._ended:
            self.abort()
            return Taken.NOTHING
        try:
            self._seal(data)
        except LinkClosed:
            return Taken.NOTHING
        return self._link.write_now(self._outgoing.read())

    async def close(self) -> None:
        """See `Link.close`: the peer is told that this is the end, and that nothing was cut off."""
        with contextlib.suppress(ssl.SSLError):  # it has not said the same yet; that is not waited for
            self._tls.unwrap()
        with contextlib.suppress(LinkClosed):
            await self._send_sealed()
        await self._link.close()

    def abort(self) -> None:
        """See `Link.abort`."""
        self._link.abort()


def _certificate(shown: dict[str, Any], whole: bytes) -> Certificate:
    common = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for _, value in shown.get("subjectAltName", ()) if isinstance(value, str)]
    return Certificate((*common, *others), hashlib.sha256(whole).hexdigest())


class _Door:
    """Has each accepted connection shake hands before it is anybody's link."""

    def __init__(
        self,
        on_link: Callable[[TlsLink], Awaitable[None]],
        tls: ServerTls,
        metrics: Metrics | None,
        *,
        binding: bool,
    ) -> None:
        self._on_link = on_link
        self._binding = binding
        self._tls = tls
        self._context = tls.context()
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._under_way = 0

    async def pass_through(self, link: Link) -> None:
        """Of one connection, until its end."""
        try:
            inner = await self._shaken(link)
        except HandshakeFailed as error:
            if self._metrics is not None:
                self._metrics.handshakes_failed[error.reason].inc()
            log.warning("connection closed", peer=link.peer, reason=error.reason, why=str(error))
            return
        try:
            await self._on_link(inner)
        finally:
            await inner.close()

    async def _shaken(self, link: Link) -> TlsLink:
        if self._under_way >= self._tls.handshakes:
            link.abort()
            raise HandshakeFailed(f"{self._under_way} TLS handshakes are under way already", "limit")
        self._under_way += 1
        try:
            inner = TlsLink(link, self._context, server=True)
            await inner.shake_hands(self._tls.handshake_deadline_s, self._turn)
        finally:
            self._under_way -= 1
        if self._binding:
            names = inner.certified_as.names if inner.certified_as is not None else ()
            inner.only_for = frozenset(name.lower() for name in names)
        return inner


async def listen(
    host: str,
    port: int,
    on_link: Callable[[TlsLink], Awaitable[None]],
    tls: ServerTls,
    *,
    binding: bool = False,
    limits: TcpLimits | None = None,
    metrics: Metrics | None = None,
) -> tcp_listener.Listener:
    """As `tcp_listener.listen`, with TLS; a connection counts as one from its first packet on. binding: a
    link is only for the terminals that the peer's certificate names.

    ConfigurationError where a file of `tls` cannot be used, or where binding and nobody asks for
    certificates."""
    if binding and tls.client_authorities is None:
        raise ConfigurationError(
            "TLS: certificates can name terminals only where they are asked for; set the authorities of the"
            " clients 未设置客户端证书颁发机构"
        )
    door = _Door(on_link, tls, metrics, binding=binding)
    return await tcp_listener.listen(host, port, door.pass_through, limits=limits, metrics=metrics)


async def connect(
    host: str,
    port: int,
    tls: ClientTls,
    *,
    context: ssl.SSLContext | None = None,
    limits: TcpLimits | None = None,
    timeout_s: float = tcp_client.CONNECT_S,
) -> TlsLink:
    """As `tcp_client.connect`, with TLS; context: made of `tls` once, where it is used often.

    Raises LinkClosed; ConfigurationError where a file of `tls` cannot be used."""
    context = context or tls.context()
    link = await tcp_client.connect(host, port, limits=limits, timeout_s=timeout_s)
    inner = TlsLink(link, context, server=False, name=tls.name or host)
    try:
        await inner.shake_hands(tls.handshake_deadline_s, asyncio.Lock())
    except BaseException:
        link.abort()
        raise
    return inner
