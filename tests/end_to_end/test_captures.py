"""Terminals of the field as captured, over real TCP: in odd splits, with rubbish on other sockets.

The terminal's side is played by plain bytes: nothing of our protocol code answers here.
"""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import to_device
from tests.end_to_end.processes import Gateway
from tests.protocols.vectors import Vector, vectors

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(240)]

LINK_TEST, CONFIRM = 0x02, 0x00
AFN, SEQ, MSA, UNITS = 12, 13, 11, 14

SETTINGS = {"LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "5"}


def by_id(name: str) -> Vector:
    return next(one for one in vectors() if one.id == name)


def links() -> list[Vector]:
    """Captured logins, heartbeats and logouts."""
    return [
        one
        for one in vectors()
        if one.valid and one.protocol == "qgdw376.1" and one.expected.get("afn") == "02"
    ]


def frame(user: bytes, protocol_id: int = 2) -> bytes:
    """A 376.1 frame around its user data, written out by hand."""
    length = (len(user) << 2 | protocol_id).to_bytes(2, "little")
    return b"\x68" + length * 2 + b"\x68" + user + bytes([sum(user) & 0xFF, 0x16])


def login(terminal: str) -> bytes:
    """A login of `terminal` in the shape of worked example 1."""
    address = bytes.fromhex(terminal[:4])[::-1] + bytes.fromhex(terminal[4:])[::-1]
    return frame(b"\xc9" + address + b"\x00\x02\x71\x00\x00\x01\x00")


def as_answer(capture: bytes, request: bytes) -> bytes:
    """The capture with only PSEQ, MSA and the checksum set to the request's."""
    raw = bytearray(capture)
    raw[SEQ] = raw[SEQ] & 0xF0 | request[SEQ] & 0x0F
    raw[MSA] = raw[MSA] & 0x01 | request[MSA] & 0xFE
    raw[-2] = sum(raw[6:-2]) & 0xFF
    return bytes(raw)


def denial(request: bytes) -> bytes:
    """AFN00 F2 to `request`."""
    return frame(
        b"\x89" + request[7:12] + bytes([CONFIRM, 0x60 | request[SEQ] & 0x0F]) + b"\x00\x00\x02\x00",
        request[1] & 3,
    )


class Line:
    """One TCP connection to the gateway that sends in odd pieces and takes whole frames."""

    def __init__(self, gateway: Gateway, chance: random.Random) -> None:
        self._socket = socket.create_connection((gateway.host, gateway.port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chance = chance
        self._rest = b""

    def send(self, raw: bytes) -> None:
        while raw:
            size = self._chance.choice((1, 2, 3, 5, 8, 64, 1000))
            self._socket.sendall(raw[:size])
            raw = raw[size:]

    def receive(self) -> bytes:
        """The next frame; b"" where the gateway closed."""
        while True:
            if len(self._rest) >= 6:
                whole = (int.from_bytes(self._rest[1:3], "little") >> 2) + 8
                if len(self._rest) >= whole:
                    raw, self._rest = self._rest[:whole], self._rest[whole:]
                    return raw
            more = self._socket.recv(4096)
            if not more:
                return b""
            self._rest += more

    def close(self) -> None:
        with suppress(OSError):  # the gateway was sooner
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever waits in `receive` is told
        self._socket.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("captures"), SETTINGS) as one:
        one.start()
        with rubbish(one):
            yield one


@contextmanager
def rubbish(gateway: Gateway) -> Iterator[None]:
    """Peers that send what is no frame, or never end one, as long as the block lasts."""
    stop = threading.Event()

    def talk(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            try:
                with socket.create_connection((gateway.host, gateway.port), timeout=5) as one:
                    for _ in range(200):
                        if stop.wait(0.01):
                            return
                        one.sendall(
                            chance.choice(
                                (b"\x68" * 500, chance.randbytes(700), b"\x68\xfe\xff\xfe\xff\x68", b"\x68")
                            )
                        )
            except OSError:
                continue  # closed by the gateway, as it should be

    talkers = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for one in talkers:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in talkers:
            one.join()


@pytest.mark.parametrize("capture", links(), ids=str)
def test_captured_logins_and_heartbeats_are_confirmed_with_their_sequence_number(
    gateway: Gateway, capture: Vector
) -> None:
    line = Line(gateway, random.Random(capture.id))
    try:
        line.send(capture.raw)
        confirm = line.receive()
    finally:
        line.close()
    assert confirm[AFN] == CONFIRM
    assert confirm[7:11] == capture.raw[7:11], "the terminal's address"
    assert confirm[SEQ] & 0x0F == capture.raw[SEQ] & 0x0F
    assert confirm[6] & 0xC0 == 0, "down, not the starting side"
    assert confirm[1] & 3 == capture.raw[1] & 3, "the peer's protocol id"
    f3 = b"\x00\x00\x04\x00" + bytes([LINK_TEST]) + capture.raw[UNITS : UNITS + 4] + b"\x00"
    assert confirm[UNITS : UNITS + len(f3)] == f3


def import_assets(gateway: Gateway, folder: Path, terminal: str, meter: str, pn: int) -> None:
    """Make that terminal and meter known."""
    terminals, meters = folder / "terminals.csv", folder / "meters.csv"
    terminals.write_text(f"terminal\n{terminal}\n")
    meters.write_text(f"meter,address,terminal,pn,port\nM{terminal}{pn},{meter},{terminal},{pn},31\n")
    assert gateway.json("import", f"--terminals={terminals}", f"--meters={meters}")["bad"] == 0


@contextmanager
def answering(
    gateway: Gateway, terminal: str, answer: Callable[[bytes], bytes | None]
) -> Iterator[list[bytes]]:
    """A terminal that has logged in; what `answer` does not answer it denies. Yields what it was asked."""
    line = Line(gateway, random.Random(terminal))
    asked: list[bytes] = []

    def serve() -> None:
        try:
            while request := line.receive():
                if request[AFN] == CONFIRM:
                    continue
                asked.append(request)
                line.send(answer(request) or denial(request))
        except OSError:
            return

    line.send(login(terminal))
    assert line.receive()[AFN] == CONFIRM
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield asked
    finally:
        line.close()
        server.join(10)


def read(gateway: Gateway, *words: str) -> dict[str, Any]:
    result: dict[str, Any] = gateway.json("read", *words)["items"][0]
    return result


@pytest.mark.parametrize("name", ["gw-073", "gw-117"])
def test_a_captured_clock_lands_as_captured(gateway: Gateway, tmp_path: Path, name: str) -> None:
    capture = by_id(name)
    terminal = capture.expected["terminal"]
    import_assets(gateway, tmp_path, terminal, "000000000001", 1)

    def answer(request: bytes) -> bytes | None:
        clock_asked = request[AFN] == 0x0C and request[UNITS : UNITS + 4] == b"\x00\x00\x02\x00"
        return as_answer(capture.raw, request) if clock_asked else None

    with answering(gateway, terminal, answer):
        item = read(gateway, terminal, "clock")
    value = {one["name"]: one["value"] for one in item["values"]}["clock"]
    assert value.replace("T", " ")[:19] == capture.expected["clock"]


def test_a_captured_register_lands_as_captured(gateway: Gateway, tmp_path: Path) -> None:
    capture = by_id("gw-071")
    terminal = capture.expected["terminal"]
    import_assets(gateway, tmp_path, terminal, "000000000071", capture.expected["pn"])

    def answer(request: bytes) -> bytes | None:
        asked = request[AFN] == 0x0C and request[UNITS : UNITS + 4] == b"\x04\x01\x01\x10"
        return as_answer(capture.raw, request) if asked else None

    with answering(gateway, terminal, answer) as asked:
        item = read(gateway, "000000000071", "forward_active")
    assert any(request[AFN] == 0x0C for request in asked)
    assert [one["value"] for one in item["values"]] == capture.expected["kwh"]
    assert (
        f"{to_device(datetime.fromisoformat(item['read_at'])):%Y-%m-%d %H:%M}"
        == capture.expected["read_time"]
    )


@pytest.mark.parametrize(
    ("name", "item", "value"),
    [("gw-007", "00010000", "6.78"), ("gw-013", "04000503", "0050"), ("gw-015", "04000503", "0000")],
)
def test_a_captured_forwarded_answer_lands_as_captured(
    gateway: Gateway, tmp_path: Path, name: str, item: str, value: str
) -> None:
    capture = by_id(name)
    terminal, meter = capture.expected["terminal"], capture.expected["inner_address"]
    import_assets(gateway, tmp_path, terminal, meter, 5)

    def answer(request: bytes) -> bytes | None:
        return as_answer(capture.raw, request) if request[AFN] == 0x10 else None

    with answering(gateway, terminal, answer) as asked:
        result = read(gateway, meter, item)
    forwarded = next(request for request in asked if request[AFN] == 0x10)
    assert bytes.fromhex(meter)[::-1] in forwarded, "the request names the meter"
    assert result["values"][0]["value"] == value


def test_the_made_midnight_answer_is_filed_under_its_day(gateway: Gateway, tmp_path: Path) -> None:
    """Worked example 13 of the 376.1 fact sheet: made, not captured."""
    raw = bytes.fromhex(
        "68BA00BA0068881403326302 0D620101011423112605002411260400563412000000000300"
        "0050000400000600050 0EEEEEEEEEE1E16".replace(" ", "")
    )
    import_assets(gateway, tmp_path, "03146332", "000000000013", 1)

    def answer(request: bytes) -> bytes | None:
        frozen = request[AFN] == 0x0D and request[UNITS : UNITS + 7] == bytes.fromhex("01010114231126")
        return as_answer(raw, request) if frozen else None

    with answering(gateway, "03146332", answer):
        gateway.json("collect", "--day=2026-11-23", "--terminal=03146332", ok=(0, 3))
    rows = gateway.run("export", "readings", "--from=2026-11-23", "--to=2026-11-23").splitlines()
    assert (
        "M031463321,forward_active,2026-11-24T00:00:00+08:00,1234.5600,300.0000,400.5000,500.0600,,good,terminal"
        in rows
    )


def test_rubbish_did_not_harm_the_gateway(gateway: Gateway) -> None:
    assert gateway.running
    assert subprocess.run(["kill", "-0", str(gateway.pid)], check=False).returncode == 0
