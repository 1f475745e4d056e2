"""The security module: who makes the ciphers and MACs that meters with an ESAM want (03H, level 98H).

As a rule an external crypto machine behind TCP (docs/security-module.md has the framing); on a bench a
software module that opens simulated meters only, and that refuses to start in production. Keys stand in files
or in the environment and are in no message, log or repr.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, Protocol

import structlog
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4

from gateway.config import SecuritySettings, split_address
from gateway.errors import ConfigurationError, LingdianError

log = structlog.get_logger()

DIVERSIFIER_LENGTH: Final = 8
RANDOM_1_LENGTH: Final = 8
CIPHER_1_LENGTH: Final = 8
RANDOM_2_LENGTH: Final = 4
ESAM_LENGTH: Final = 8
MAC_LENGTH: Final = 4
LONGEST_PLAINTEXT: Final = 200
"""More does not fit into a frame of a meter."""
LONGEST_CIPHER: Final = LONGEST_PLAINTEXT + 16


class SecurityModuleError(LingdianError):
    """The module cannot do what was asked; the message says why, and names no key and no plaintext."""


class Challenge(NamedTuple):
    """What opens an identity authentication, high byte first, eight bytes each."""

    random: bytes
    cipher: bytes


class Sealed(NamedTuple):
    """A sealed plaintext, high byte first; the MAC has four bytes."""

    cipher: bytes
    mac: bytes


class SecurityModule(Protocol):
    """All bytes are high byte first. diversifier: 0000 and the meter number, eight bytes. Every method may
    raise SecurityModuleError: for a trip that is the end of the attempt, for a close a reason to try again.
    """

    async def authenticate(self, diversifier: bytes) -> Challenge:
        """Random 1 and cipher 1 for an identity authentication (03H, 070000FF)."""
        ...

    async def seal(self, plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes) -> Sealed:
        """Encipher and sign R1..R8 (or other data, at most 200 bytes) for the session in which the meter has
        answered `random` (random 2, four bytes) and `esam` (its serial number, eight bytes)."""
        ...

    async def close(self) -> None:
        """Let go of whatever it holds. Never raises."""
        ...


def open_module(settings: SecuritySettings) -> SecurityModule | None:
    """The module that the settings name; None where meters are switched by password only.

    ConfigurationError where it cannot be: above all a software module in production.
    """
    match settings.module:
        case "none":
            return None
        case "software":
            return SoftwareModule(_master_key(settings), production=settings.production)
        case "tcp":
            if settings.address is None:
                raise ConfigurationError("security.address: needed where security.module is tcp")
            host, port = split_address(settings.address)
            timeout = settings.timeout_seconds
            return TcpModule(host, port, timeout_s=timeout, tls=_tls(settings))


def _master_key(settings: SecuritySettings) -> bytes:
    if settings.key is not None:
        text = settings.key.get_secret_value()
    elif settings.key_file is not None:
        text = _read(settings.key_file, "security.key_file")
    else:
        raise ConfigurationError("security.key_file (or security.key in the environment): needed here")
    try:
        return bytes.fromhex(text)
    except ValueError:  # whose message would show the key
        raise ConfigurationError("security.key: is not written in hex digits") from None


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not ASCII"
        raise ConfigurationError(f"{key}: {path}: {reason}") from None


def _tls(settings: SecuritySettings) -> ssl.SSLContext | None:
    if settings.ca_file is None:
        if settings.production:
            raise ConfigurationError("security.ca_file: a security module without TLS is for a bench only")
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.certificate_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"security: the TLS files cannot be used: {error}") from None
    return context


# -- by TCP ---------------------------------------------------------------------------------------

_VERSION = 1
_HEAD = Struct(">HBIB")
"""Bytes that follow the length, version, sequence, command."""
_HEAD_REST = _HEAD.size - 2
_AUTHENTICATE, _SEAL, _ANSWER = 0x10, 0x11, 0x80
_DONE = 0
_STATUS = {1: "is busy", 2: "has no such key", 3: "does not understand", 4: "does not allow this"}
_LONGEST_ANSWER = 1024

MOST_WAITING: Final = 1024
"""Requests under way at one time."""
RETRY_S: Final = 1.0
"""After a connection that could not be had requests fail at once for so long, and then it is tried again."""


class TcpModule:
    """An external machine. One connection, opened when it is wanted, on which requests overlap."""

    def __init__(
        self, host: str, port: int, *, timeout_s: float = 5.0, tls: ssl.SSLContext | None = None
    ) -> None:
        """timeout_s: for connecting, and for each answer."""
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._tls = tls
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._sequence = 0
        self._heard_at = 0.0
        self._again_at = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"TcpModule({self._host}:{self._port})"

    async def authenticate(self, diversifier: bytes) -> Challenge:
        """See SecurityModule."""
        _check("the diversifier", diversifier, DIVERSIFIER_LENGTH)
        body = await self._ask(_AUTHENTICATE, diversifier)
        self._check_length(body, RANDOM_1_LENGTH + CIPHER_1_LENGTH)
        return Challenge(body[:RANDOM_1_LENGTH], body[RANDOM_1_LENGTH:])

    async def seal(self, plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes) -> Sealed:
        """See SecurityModule."""
        _check_session(plaintext, random, esam, diversifier)
        body = await self._ask(_SEAL, diversifier + random + esam + plaintext)
        if not MAC_LENGTH < len(body) <= MAC_LENGTH + LONGEST_CIPHER:
            self._check_length(body, MAC_LENGTH + LONGEST_CIPHER)
        return Sealed(body[MAC_LENGTH:], body[:MAC_LENGTH])

    async def close(self) -> None:
        """See SecurityModule. Requests under way fail."""
        self._closed = True
        listening = self._listening
        self._drop("it was closed here")
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _ask(self, command: int, body: bytes) -> bytes:
        if len(self._waiting) >= MOST_WAITING:
            raise SecurityModuleError(f"{MOST_WAITING} requests wait for the security module already")
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer, told = await self._exchange(command, body)
        except TimeoutError:
            if self._heard_at < asked_at:  # else it works, and this one request is slow
                self._drop("it says nothing")
            raise SecurityModuleError(
                f"the security module did not answer in {self._timeout_s:g} s"
            ) from None
        except OSError as error:
            raise SecurityModuleError(f"the security module is gone: {error}") from None
        if answer != command | _ANSWER or not told:
            self._drop("it answered what was not asked")
            raise SecurityModuleError("the security module answered what was not asked")
        if told[0] != _DONE:
            words = _STATUS.get(told[0], f"fails with status {told[0]:02X}H")
            raise SecurityModuleError(f"the security module {words}")
        return told[1:]

    async def _exchange(self, command: int, body: bytes) -> tuple[int, bytes]:
        writer = await self._connected()
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = answered
        try:
            writer.write(_HEAD.pack(_HEAD_REST + len(body), _VERSION, sequence, command) + body)
            await writer.drain()
            return await answered
        finally:
            self._waiting.pop(sequence, None)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._closed:
                raise SecurityModuleError("the security module was closed here")
            if self._writer is not None:
                return self._writer
            loop = asyncio.get_running_loop()
            if loop.time() < self._again_at:
                raise SecurityModuleError("the security module cannot be reached")
            self._again_at = loop.time() + RETRY_S
            reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
            self._again_at = 0.0
            self._listening = loop.create_task(self._listen(reader), name="security module")
            return self._writer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand out answers; those that nobody waits for any more are passed over."""
        why = "it has closed the connection"
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                if not _HEAD_REST < length <= _LONGEST_ANSWER:
                    why = f"it announced {length} bytes"
                    break
                raw = await reader.readexactly(length)
                if raw[0] != _VERSION:
                    why = f"it speaks version {raw[0]}"
                    break
                self._heard_at = asyncio.get_running_loop().time()
                waiting = self._waiting.get(int.from_bytes(raw[1:5], "big"))
                if waiting is not None and not waiting.done():
                    waiting.set_result((raw[5], raw[_HEAD_REST:]))
        except (OSError, asyncio.IncompleteReadError):
            pass
        self._drop(why)

    def _drop(self, why: str) -> None:
        """End the connection, and all that waits on it."""
        writer, self._writer = self._writer, None
        listening, self._listening = self._listening, None
        if writer is None:
            return
        log.warning("the security module's connection is given up", reason=why)
        writer.transport.abort()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(SecurityModuleError(f"the security module's connection ended: {why}"))
        if listening is not None and listening is not asyncio.current_task():
            listening.cancel()

    def _check_length(self, body: bytes, wanted: int) -> None:
        if len(body) != wanted:
            self._drop(f"an answer had {len(body)} bytes")
            raise SecurityModuleError(f"the security module answered with {len(body)} bytes, not {wanted}")


# -- by software ----------------------------------------------------------------------------------

_BLOCK = 16


class SoftwareModule:
    """The bench's own scheme, which real meters do not know: docs/security-module.md describes it.

    ConfigurationError in production, and for a key that has not 16 bytes.
    """

    def __init__(self, master_key: bytes, *, production: bool) -> None:
        if production:
            raise ConfigurationError(
                "security.module: software opens simulated meters only, and its key lies in this process's "
                "memory: it does not start in production (security.production = false is for a bench)"
            )
        if len(master_key) != _BLOCK:
            raise ConfigurationError(f"security.key: has {len(master_key)} bytes, not {_BLOCK}")
        self._master = SM4(master_key)

    def __repr__(self) -> str:
        return "SoftwareModule()"

    async def authenticate(self, diversifier: bytes) -> Challenge:
        """See SecurityModule."""
        _check("the diversifier", diversifier, DIVERSIFIER_LENGTH)
        random = secrets.token_bytes(RANDOM_1_LENGTH)
        whole = _ecb(self._meter_key(b"authenticate", diversifier), random + diversifier)
        folded = int.from_bytes(whole[:8], "big") ^ int.from_bytes(whole[8:], "big")
        return Challenge(random, folded.to_bytes(CIPHER_1_LENGTH, "big"))

    async def seal(self, plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes) -> Sealed:
        """See SecurityModule."""
        _check_session(plaintext, random, esam, diversifier)
        fresh = (random + esam).ljust(_BLOCK, b"\x00")
        padded = plaintext + b"\x80"
        padded += bytes(-len(padded) % _BLOCK)
        cipher = _cbc(SM4(_ecb(self._meter_key(b"encipher", diversifier), fresh)), padded)
        signed = len(cipher).to_bytes(_BLOCK, "big") + cipher
        last = _cbc(SM4(_ecb(self._meter_key(b"mac", diversifier), fresh)), signed)[-_BLOCK:]
        return Sealed(cipher, last[:MAC_LENGTH])

    async def close(self) -> None:
        """See SecurityModule."""

    def _meter_key(self, purpose: bytes, diversifier: bytes) -> SM4:
        of_purpose = SM4(_ecb(self._master, purpose.ljust(_BLOCK, b"\x00")))
        inverse = bytes(byte ^ 0xFF for byte in diversifier)
        return SM4(_ecb(of_purpose, diversifier + inverse))


def _ecb(key: SM4, block: bytes) -> bytes:
    """One block."""
    encryptor = Cipher(key, modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def _cbc(key: SM4, blocks: bytes) -> bytes:
    """From an initial value of zero: every key here holds for one session."""
    encryptor = Cipher(key, modes.CBC(bytes(_BLOCK))).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()


def _check_session(plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes) -> None:
    _check("the diversifier", diversifier, DIVERSIFIER_LENGTH)
    _check("random 2", random, RANDOM_2_LENGTH)
    _check("the ESAM's number", esam, ESAM_LENGTH)
    if not 1 <= len(plaintext) <= LONGEST_PLAINTEXT:
        raise SecurityModuleError(f"{len(plaintext)} bytes cannot be sealed (1..{LONGEST_PLAINTEXT})")


def _check(what: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise SecurityModuleError(f"{what} has {len(value)} bytes, not {length}")
