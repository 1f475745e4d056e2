"""TLS and mutual TLS on the TCP face; the unix socket stays plain; tokens never in the clear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.api import app as api
from gateway.api.server import HttpServer, Tls
from gateway.config import HttpSettings
from tests.gateway.stand_ins import StandInHouse


@dataclass
class Identity:
    """A certificate and its key, in files and at hand."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey
    file: Path
    key: Path


def issue(folder: Path, name: str, issuer: Identity | None = None, others: Iterable[str] = ()) -> Identity:
    """A certificate for 127.0.0.1 and `others` by `issuer`; without one an authority's own."""
    names = [x509.IPAddress(ip_address("127.0.0.1")), *(x509.DNSName(other) for other in others)]
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    certificate = builder.sign(private if issuer is None else issuer.private, hashes.SHA256())
    file, key = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Identity(certificate, private, file, key)


@asynccontextmanager
async def served(tls: Tls) -> AsyncIterator[str]:
    house = StandInHouse()
    server = HttpServer.on_tcp(api.by_token(house.parts, private=True), "127.0.0.1", 0, tls)
    serving = asyncio.create_task(server.serve())
    yield f"https://{server.address}/healthz"
    server.stop()
    await serving
    await house.collections.close()


async def ask(url: str, authority: Identity, client: Identity | None = None, **told: Any) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        context.load_cert_chain(client.file, client.key)
    for name, value in told.items():
        setattr(context, name, value)
    async with httpx.AsyncClient(verify=context, timeout=10) as http:
        return await http.get(url)


async def test_the_tcp_face_speaks_tls(tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    server = issue(tmp_path, "server", authority)
    async with served(Tls(server.file, server.key)) as url:
        assert (await ask(url, authority)).text == "ok\n"
        with pytest.raises(httpx.HTTPError):
            await ask(url.replace("https", "http"), authority)
        with pytest.raises(httpx.ConnectError):
            await ask(url, issue(tmp_path, "stranger"))
        with pytest.raises(httpx.ConnectError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
            await ask(url, authority, maximum_version=ssl.TLSVersion.TLSv1_1)


async def test_only_clients_of_the_authority_are_let_in(tmp_path: Path) -> None:
    authority, others = issue(tmp_path, "authority"), issue(tmp_path, "others")
    server = issue(tmp_path, "server", authority)
    async with served(Tls(server.file, server.key, authority.file)) as url:
        assert (await ask(url, authority, issue(tmp_path, "billing", authority))).text == "ok\n"
        for client in (None, issue(tmp_path, "thief", others)):
            with pytest.raises(httpx.HTTPError):
                await ask(url, authority, client)


def test_files_that_are_no_certificate_are_found_at_start(tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    (tmp_path / "empty").write_bytes(b"")
    for tls in (
        Tls(tmp_path / "missing", authority.key),
        Tls(authority.file, tmp_path / "empty"),
        Tls(authority.file, authority.key, tmp_path / "missing"),
    ):
        with pytest.raises(OSError):  # noqa: PT011 - whatever OpenSSL has to say of it
            tls.context()


@pytest.mark.parametrize(
    ("settings", "private"),
    [
        ({"address": "127.0.0.1:1"}, True),
        ({"address": "[::1]:1"}, True),
        ({"address": "localhost:1"}, True),
        ({"address": "0.0.0.0:1"}, False),
        ({"address": "10.0.0.1:1"}, False),
        ({"address": "head-end.example:1"}, False),
        ({"address": "0.0.0.0:1", "behind_proxy": True}, True),
        ({"address": "0.0.0.0:1", "certificate": "c", "key": "k"}, True),
    ],
)
def test_where_a_token_can_be_sent(settings: dict[str, Any], private: bool) -> None:
    assert HttpSettings(**settings).private() is private


@pytest.mark.parametrize("settings", [{"certificate": "c"}, {"key": "k"}, {"client_authorities": "a"}])
def test_half_of_tls_is_a_mistake(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"together|needs"):
        HttpSettings(**settings)
