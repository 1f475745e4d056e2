"""Addresses of channels: what is written is understood whole, or refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LingdianError
from gateway.transports.channel import (
    SPEEDS,
    Channel,
    ChannelError,
    MqttChannel,
    SerialChannel,
    TcpChannel,
    UdpChannel,
    parse,
)

UNDERSTOOD: list[tuple[str, Channel]] = [
    ("tcp://10.0.0.7:2404", TcpChannel("10.0.0.7", 2404)),
    ("TCP://head-end.example:0", TcpChannel("head-end.example", 0)),
    ("tcps://[2001:db8::7]:3762", TcpChannel("2001:db8::7", 3762, tls=True)),
    ("tcp://[::]:3761", TcpChannel("::", 3761)),
    ("tcp://[fe80::1%eth0]:3761", TcpChannel("fe80::1%eth0", 3761)),
    ("udp://0.0.0.0:3761", UdpChannel("0.0.0.0", 3761)),
    ("serial:///dev/ttyUSB0", SerialChannel("/dev/ttyUSB0", 2400, "E", 8, 1, 500, "auto")),
    (
        "serial:///dev/serial/by-id/usb-FTDI_x-if00?baud=9600&parity=n&bits=7&stop=2&gap_ms=80&echo=on",
        SerialChannel("/dev/serial/by-id/usb-FTDI_x-if00", 9600, "N", 7, 2, 80, "on"),
    ),
    ("mqtt://broker", MqttChannel("broker", 1883)),
    ("mqtts://broker", MqttChannel("broker", 8883, tls=True)),
    ("mqtts://[::1]:8884/power/area-7", MqttChannel("::1", 8884, "power/area-7", tls=True)),
]

REFUSED = [
    ("", "schemes"),
    ("10.0.0.7:2404", "schemes"),
    ("http://10.0.0.7:80", "'http' is no scheme"),
    ("tcp://10.0.0.7", "port is 0 to 65535"),
    ("tcp://10.0.0.7:", "port is 0 to 65535"),
    ("tcp://10.0.0.7:65536", "port is 0 to 65535"),
    ("tcp://10.0.0.7:+80", "port is 0 to 65535"),
    ("tcp://10.0.0.7:٣", "port is 0 to 65535"),
    ("tcp://:2404", "HOST:PORT must follow"),
    ("tcp://::1:2404", "brackets"),
    ("tcp://[::1:2404", "brackets"),
    ("tcp://[10.0.0.7]:2404", "no IPv6 address"),
    ("tcp://-x:1", "no name of a host"),
    ("tcp://10.0.0.7:2404/x", "nothing may follow"),
    ("tcp://10.0.0.7:2404?baud=2400", "'baud' is no option; this kind of address takes none"),
    ("tcp://10.0.0.7:2404#x", "'#'"),
    ("tcp://10.0.0.7:24 04", "blanks"),
    ("tcp://10.0.0.7:2404\n", "blanks"),
    ("tcp://" + "x" * 2000 + ":1", "longer than"),
    ("serial://ttyUSB0", "whole path"),
    ("serial://COM3", "whole path"),
    ("serial:///dev/", "whole path"),
    ("serial:///dev/ttyS0?", "KEY=VALUE"),
    ("serial:///dev/ttyS0?baud", "KEY=VALUE"),
    ("serial:///dev/ttyS0?baud=", "KEY=VALUE"),
    ("serial:///dev/ttyS0?speed=2400", "'speed' is no option; there are baud, parity"),
    ("serial:///dev/ttyS0?baud=2400&baud=9600", "twice"),
    ("serial:///dev/ttyS0?baud=1234", "baud is 300, 600"),
    ("serial:///dev/ttyS0?parity=M", "parity is N, E or O"),
    ("serial:///dev/ttyS0?bits=9", "bits is 7 or 8"),
    ("serial:///dev/ttyS0?stop=1.5", "stop is 1 or 2"),
    ("serial:///dev/ttyS0?gap_ms=0", "gap_ms is 1 to 60000"),
    ("serial:///dev/ttyS0?echo=maybe", "echo is off, on or auto"),
    ("mqtt://broker/#", "'#'"),
    ("mqtt://broker/a/+/b", "wildcards"),
    ("mqtt://broker/a/", "wildcards"),
]


@pytest.mark.parametrize(("text", "channel"), UNDERSTOOD)
def test_what_is_understood(text: str, channel: Channel) -> None:
    assert parse(text) == channel
    assert parse(str(channel)) == channel


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_what_is_refused_and_why(text: str, why: str) -> None:
    with pytest.raises(ChannelError) as caught:
        parse(text)
    assert why in str(caught.value)
    assert text[:20] in str(caught.value).replace("\\n", "\n")
    assert isinstance(caught.value, LingdianError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "text", ["mqtt://user:hush@broker/x", "mqtt://user:hush@bro ker", "tcp://hush@" + "x" * 2000]
)
def test_a_password_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ChannelError, match="settings") as caught:
        parse(text)
    assert "hush" not in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"(tcps?|udp|serial|mqtts?)://.{0,40}", fullmatch=True))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        channel = parse(text)
    except ChannelError:
        return
    assert parse(str(channel)) == channel


@given(
    st.builds(
        SerialChannel,
        st.just("/dev/ttyS1"),
        st.sampled_from(SPEEDS),
        st.sampled_from(["N", "E", "O"]),
        st.sampled_from([7, 8]),
        st.sampled_from([1, 2]),
        st.integers(1, 60_000),
        st.sampled_from(["off", "on", "auto"]),
    )
)
def test_every_serial_port_can_be_spelled(channel: SerialChannel) -> None:
    assert parse(str(channel)) == channel
