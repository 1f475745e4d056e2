"""Security modules: the software one against a simulated chip, the adapter against a machine on TCP."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from pydantic import SecretStr

from gateway.config import SecuritySettings
from gateway.control import security
from gateway.control.security import (
    Challenge,
    Sealed,
    SecurityModule,
    SecurityModuleError,
    SoftwareModule,
    TcpModule,
    open_module,
)
from gateway.door import Sealing
from gateway.errors import ConfigurationError
from protocols.dlt645 import control
from protocols.dlt645.control_messages import RelayReply, SecurityReply, Verb
from simulator.control import Setup
from simulator.esam import BENCH_KEY, Esam
from simulator.sm4 import Sm4
from tests.gateway.control.crypto_machine import CryptoMachine, done, failed
from tests.simulator.household import Household

DOCUMENT = Path(__file__).parents[3] / "docs" / "security-module.md"
METER = bytes.fromhex("0000202311050012")
RANDOM_2, ESAM = bytes.fromhex("a1a2a3a4"), bytes.fromhex("4c44202311050012")
TRIP = bytes.fromhex("1a00261124130000")
KEY = "00112233445566778899aabbccddeeff"


# -- SM4 ------------------------------------------------------------------------------------------


def test_sm4_of_the_standards_examples() -> None:
    """GB/T 32907-2016, A.1 and A.2: once, and a million times over."""
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    encryptor = Cipher(SM4(key), modes.ECB()).encryptor()
    block = encryptor.update(key)
    assert block.hex() == "681edf34d206965e86b3e94f536e4246"
    for _ in range(999_999):
        block = encryptor.update(block)
    assert block.hex() == "595298c7c6fd271f0402f804c33d3f66"


def test_the_simulators_own_sm4_is_the_librarys() -> None:
    chance = random.Random(4)
    for _ in range(300):
        key, block = chance.randbytes(16), chance.randbytes(16)
        cipher = Cipher(SM4(key), modes.ECB()).encryptor().update(block)
        assert Sm4(key).encrypt(block) == cipher
        assert Sm4(key).decrypt(cipher) == block


# -- software -------------------------------------------------------------------------------------


def test_software_refuses_to_start_in_production() -> None:
    with pytest.raises(ConfigurationError, match="does not start in production"):
        SoftwareModule(BENCH_KEY, production=True)
    with pytest.raises(ConfigurationError, match="does not start in production"):
        open_module(SecuritySettings(module="software", key=SecretStr(KEY)))


async def test_the_documents_example() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    example = text[text.index("With master key `") :]
    master, random_1, cipher_1, random_2, esam, plaintext, cipher, mac = (
        bytes.fromhex(word) for word in re.findall(r"`([0-9a-f]+)`", example)
    )
    assert master == BENCH_KEY
    module = SoftwareModule(master, production=False)
    assert await module.seal(plaintext, random_2, esam, METER) == Sealed(cipher, mac)
    chip = Esam("202311050012", master)
    assert chip.serial == esam
    assert chip.authenticate(cipher_1, random_1, METER, 0.0)
    assert chip.authenticate(cipher_1[::-1], random_1, METER, 0.0) is None


@pytest.mark.parametrize("length", [1, 8, 12, 15, 16, 17, 100, 200])
async def test_a_simulated_chip_opens_what_software_sealed(length: int) -> None:
    module = SoftwareModule(BENCH_KEY, production=False)
    chip = Esam("202311050012")
    challenge = await module.authenticate(METER)
    random_2 = chip.authenticate(challenge.cipher, challenge.random, METER, 0.0)
    assert random_2 is not None
    plaintext = bytes(length - 1) + b"\x80"  # the mark of the padding may stand in the data
    cipher, mac = await module.seal(plaintext, random_2, chip.serial, METER)
    assert chip.open(cipher + mac) == plaintext
    assert plaintext not in cipher
    for place in range(len(cipher + mac)):
        changed = bytearray(cipher + mac)
        changed[place] ^= 1
        assert chip.open(bytes(changed)) is None


async def test_a_meter_is_switched_with_it() -> None:
    """The whole way: authentication, seal, frames, meter."""
    module = SoftwareModule(BENCH_KEY, production=False)
    home = Household(Setup(esam=True))
    number = control.diversifier(home.address)
    challenge = await module.authenticate(number)
    request = control.authentication(
        home.address, "00000001", challenge.cipher, challenge.random, home.address
    )
    answer = home.secured(request)
    assert isinstance(answer, SecurityReply)
    session = answer.value("random"), answer.value("esam")
    sealed = await module.seal(control.control_plaintext(Verb.TRIP, home.now), *session, number)
    said = home.sealed(Verb.TRIP, session, lambda *_: (sealed.cipher, sealed.mac))
    assert home.say(said) == RelayReply(home.address, 1 << 2)
    assert home.meter.is_open


async def test_each_challenge_is_fresh_and_other_keys_do_not_open() -> None:
    module = SoftwareModule(BENCH_KEY, production=False)
    first, second = await module.authenticate(METER), await module.authenticate(METER)
    assert first.random != second.random
    other = await SoftwareModule(bytes(16), production=False).authenticate(METER)
    assert Esam("202311050012").authenticate(other.cipher, other.random, METER, 0.0) is None


async def test_software_refuses_what_has_another_length() -> None:
    module: SecurityModule = SoftwareModule(BENCH_KEY, production=False)
    with pytest.raises(SecurityModuleError, match="diversifier has 7 bytes, not 8"):
        await module.authenticate(METER[1:])
    for arguments in (
        (TRIP, RANDOM_2[1:], ESAM, METER),
        (TRIP, RANDOM_2, ESAM[1:], METER),
        (b"", RANDOM_2, ESAM, METER),
        (bytes(201), RANDOM_2, ESAM, METER),
    ):
        with pytest.raises(SecurityModuleError):
            await module.seal(*arguments)
    await module.close()


async def test_both_satisfy_what_a_door_needs() -> None:
    """By type: mypy checks it."""
    modules: list[Sealing] = [SoftwareModule(BENCH_KEY, production=False), TcpModule("127.0.0.1", 1)]
    for module in modules:
        assert "4c69" not in repr(module)


# -- choosing, and keeping secrets ----------------------------------------------------------------


def bench_settings(**more: Any) -> SecuritySettings:
    return SecuritySettings(production=False, **more)


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert isinstance(open_module(bench_settings(module="software", key_file=file)), SoftwareModule)
    assert isinstance(open_module(bench_settings(module="software", key=KEY)), SoftwareModule)
    assert open_module(SecuritySettings()) is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"module": "software"}, "security.key_file"),
        ({"module": "software", "key": "0011zz"}, "not written in hex"),
        ({"module": "software", "key": KEY[2:]}, "has 15 bytes, not 16"),
        ({"module": "software", "key_file": "/nowhere/key"}, "/nowhere/key: No such file"),
        ({"module": "tcp"}, "security.address"),
        ({"module": "tcp", "address": "127.0.0.1:1", "ca_file": "/nowhere/ca"}, "TLS files"),
    ],
)
def test_what_is_missing_or_wrong_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_module(bench_settings(**more))
    assert "zz" not in str(caught.value)
    assert KEY[2:8] not in str(caught.value)


def test_in_production_a_machine_is_reached_by_tls_only() -> None:
    with pytest.raises(ConfigurationError, match="without TLS is for a bench"):
        open_module(SecuritySettings(module="tcp", address="127.0.0.1:1"))


def test_no_key_is_shown(tmp_path: Path) -> None:
    settings = bench_settings(module="software", key=KEY)
    module = open_module(settings)
    assert KEY[:6] not in f"{settings!r} {settings} {module!r} {module} {settings.model_dump_json()}"


# -- by TCP ---------------------------------------------------------------------------------------


@asynccontextmanager
async def adapter(machine: CryptoMachine, timeout_s: float = 5.0, **more: Any) -> AsyncIterator[TcpModule]:
    async with machine.running():
        module = TcpModule(*machine.address, timeout_s=timeout_s, **more)
        try:
            yield module
        finally:
            await module.close()


def challenge_of(payload: bytes) -> bytes:
    """Made of the diversifier, so that answers can be told apart."""
    return done(payload, payload[6:14] + b"cipher 1")


async def test_the_bytes_are_those_of_the_document() -> None:
    machine = CryptoMachine(
        lambda payload: [done(payload, bytes.fromhex("11121314151617180102030405060708"))]
    )
    async with adapter(machine) as module:
        told = await module.authenticate(METER)
        assert told == Challenge(bytes.fromhex("1112131415161718"), bytes.fromhex("0102030405060708"))
    assert machine.asked == [bytes.fromhex("01 00000001 10 0000202311050012")]
    lines = re.findall(r"^(?:->|<-) ([0-9A-F ]+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    asked, answered = (bytes.fromhex(line) for line in lines)
    assert asked == b"\x00\x0e" + machine.asked[0]
    assert answered == b"\x00\x17" + machine.answer(machine.asked[0])[0]


async def test_a_command_is_sealed() -> None:
    machine = CryptoMachine(lambda payload: [done(payload, b"MAC." + b"sixteen bytes...")])
    async with adapter(machine) as module:
        sealed = await module.seal(TRIP, RANDOM_2, ESAM, METER)
        assert sealed == Sealed(b"sixteen bytes...", b"MAC.")
    assert machine.asked == [b"\x01\x00\x00\x00\x01\x11" + METER + RANDOM_2 + ESAM + TRIP]


async def test_answers_may_come_in_any_order() -> None:
    held: list[bytes] = []

    def answer(payload: bytes) -> list[bytes]:
        held.append(challenge_of(payload))
        return held[::-1] if len(held) == 20 else []

    machine = CryptoMachine(answer)
    async with adapter(machine) as module:
        meters = [number.to_bytes(8, "big") for number in range(20)]
        told = await asyncio.gather(*(module.authenticate(meter) for meter in meters))
        assert [challenge.random for challenge in told] == meters
    assert machine.connections == 1


@pytest.mark.parametrize(
    ("status", "words"), [(1, "is busy"), (2, "has no such key"), (3, "understand"), (4, "allow"), (9, "09H")]
)
async def test_a_refusal_is_told_and_the_connection_kept(status: int, words: str) -> None:
    machine = CryptoMachine(
        lambda payload: [failed(payload, status) if len(machine.asked) == 1 else challenge_of(payload)]
    )
    async with adapter(machine) as module:
        with pytest.raises(SecurityModuleError, match=words):
            await module.authenticate(METER)
        assert (await module.authenticate(METER)).random == METER
    assert machine.connections == 1


async def test_a_silent_machine_is_left_and_dialled_anew() -> None:
    machine = CryptoMachine(lambda payload: [] if len(machine.asked) == 1 else [challenge_of(payload)])
    async with adapter(machine, timeout_s=0.2) as module:
        with pytest.raises(SecurityModuleError, match=r"did not answer in 0\.2 s"):
            await module.authenticate(METER)
        assert (await module.authenticate(METER)).random == METER
    assert machine.connections == 2


async def test_one_slow_answer_does_not_end_the_others_and_is_passed_over() -> None:
    slow = bytes(8)
    late: list[bytes] = []

    def answer(payload: bytes) -> list[bytes]:
        if payload[6:14] != slow:
            return [*late, challenge_of(payload)]
        late.append(challenge_of(payload))
        return []

    machine = CryptoMachine(
        lambda payload: answer(payload)[-1:] if len(machine.asked) < 3 else answer(payload)
    )
    async with adapter(machine, timeout_s=0.3) as module:
        waiting = asyncio.create_task(module.authenticate(slow))
        await asyncio.sleep(0.1)
        assert (await module.authenticate(METER)).random == METER
        with pytest.raises(SecurityModuleError, match="did not answer"):
            await waiting
        assert (await module.authenticate(METER)).random == METER, "behind the late answer"
    assert machine.connections == 1


async def test_a_broken_connection_fails_what_waits_and_is_made_anew() -> None:
    machine = CryptoMachine(lambda payload: [] if len(machine.asked) < 3 else [challenge_of(payload)])
    async with adapter(machine) as module:
        waiting = [asyncio.create_task(module.authenticate(METER)) for _ in range(2)]
        await machine.was_asked(2)
        machine.hang_up()
        for task in waiting:
            with pytest.raises(SecurityModuleError, match="connection ended"):
                await task
        assert (await module.authenticate(METER)).random == METER


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x00\x00", id="no length"),
        pytest.param(b"\x00\x06" + bytes(6), id="no status"),
        pytest.param(b"\xff\xff" + bytes(40), id="endless"),
        pytest.param(b"\x00\x08\x02" + bytes(7), id="another version"),
        pytest.param(b"\x00\x17\x01\x00\x00\x00\x01\x91" + bytes(17), id="another command"),
        pytest.param(b"\x00\x16\x01\x00\x00\x00\x01\x90" + bytes(16), id="too short a body"),
    ],
)
async def test_rubbish_ends_the_connection(raw: bytes) -> None:
    machine = CryptoMachine(lambda payload: [raw], bare=True)
    async with adapter(machine) as module:
        with pytest.raises(SecurityModuleError):
            await module.authenticate(METER)
        machine.bare, machine.answer = False, lambda payload: [challenge_of(payload)]
        assert (await module.authenticate(METER)).random == METER
    assert machine.connections == 2


async def test_a_machine_that_is_not_there_fails_fast_and_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = CryptoMachine(lambda payload: [challenge_of(payload)])
    async with machine.running():
        address = machine.address
    module = TcpModule(*address, timeout_s=5.0)
    with pytest.raises(SecurityModuleError, match="is gone"):
        await module.authenticate(METER)
    with pytest.raises(SecurityModuleError, match="cannot be reached"):
        await module.authenticate(METER)
    monkeypatch.setattr(module, "_again_at", 0.0)  # a second later
    with pytest.raises(SecurityModuleError, match="is gone"):
        await module.authenticate(METER)
    await module.close()
    with pytest.raises(SecurityModuleError, match="closed here"):
        await module.authenticate(METER)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_WAITING", 3)
    machine = CryptoMachine(lambda payload: [])
    async with adapter(machine) as module:
        waiting = [asyncio.create_task(module.authenticate(METER)) for _ in range(3)]
        await machine.was_asked(3)
        with pytest.raises(SecurityModuleError, match="3 requests wait"):
            await module.authenticate(METER)
        await module.close()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, SecurityModuleError) for error in told)


async def test_it_speaks_tls_to_a_machine_that_its_authority_has_signed(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    machine = CryptoMachine(lambda payload: [challenge_of(payload)], tls=serving)
    async with machine.running():
        host, port = machine.address
        trusted = open_module(SecuritySettings(module="tcp", address=f"{host}:{port}", ca_file=certificate))
        assert trusted is not None
        assert (await trusted.authenticate(METER)).random == METER
        await trusted.close()
        stranger = TcpModule(host, port, tls=ssl.create_default_context())
        with pytest.raises(SecurityModuleError, match="is gone"):
            await stranger.authenticate(METER)
        await stranger.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "crypto machine")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(private, hashes.SHA256())
    )
    files = folder / "machine.pem", folder / "machine.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files
