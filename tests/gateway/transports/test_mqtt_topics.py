"""A profile's topics and payloads: what fits, and that nothing that does not ever raises another error."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.transports.mqtt_broker import Broker
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Payload, Stale, TopicMap, Topics, Unusable

NOW = datetime(2026, 11, 24, 0, 10, tzinfo=UTC)
FRAME = bytes.fromhex("683200320068c916")
FORMS = [
    Payload(),
    Payload("hex"),
    Payload("json"),
    Payload("json", "data", "base64", "ts", "seconds", 30.0),
    Payload("json", "data", "hex", "ts", "milliseconds", 30.0),
    Payload("json", "data", "hex", "ts", "iso", 30.0),
]


@pytest.mark.parametrize("payload", FORMS, ids=str)
def test_a_frame_comes_back_out_of_its_message(payload: Payload) -> None:
    assert payload.frame(payload.message(FRAME, NOW), NOW) == FRAME


def test_the_messages_as_they_are_written() -> None:
    assert FORMS[0].message(FRAME, NOW) == FRAME
    assert FORMS[1].message(FRAME, NOW) == b"683200320068c916"
    assert json.loads(FORMS[3].message(FRAME, NOW)) == {
        "data": base64.b64encode(FRAME).decode(),
        "ts": 1795479000,
    }
    assert json.loads(FORMS[4].message(FRAME, NOW))["ts"] == 1795479000000
    assert json.loads(FORMS[5].message(FRAME, NOW))["ts"] == "2026-11-24T00:10:00.000+00:00"


def test_hex_may_have_spaces_and_capitals() -> None:
    assert Payload("hex").frame(b" 68 32 00 3200 68 C9 16\r\n", NOW) == FRAME


@pytest.mark.parametrize(
    ("stamp", "fresh"),
    [
        (1795479000, True),
        (1795478971, True),
        (1795478969, False),
        (0, False),
        (-1e300, False),
        (1795479500, True),
    ],
)
def test_a_frame_that_was_sent_too_long_ago_is_told_apart(stamp: float, fresh: bool) -> None:
    message = json.dumps({"data": base64.b64encode(FRAME).decode(), "ts": stamp}).encode()
    if fresh:
        assert FORMS[3].frame(message, NOW) == FRAME
    else:
        with pytest.raises(Stale):
            FORMS[3].frame(message, NOW)


@pytest.mark.parametrize(
    "envelope",
    [
        {"data": "68"},
        {"data": "68", "ts": None},
        {"data": "68", "ts": True},
        {"data": "68", "ts": 1795479000},
        {"data": "68", "ts": "yesterday"},
        {"data": "68", "ts": "2026-11-24T00:10:00"},
        {"ts": "2026-11-24T00:10:00+00:00"},
        {"data": "6", "ts": "2026-11-24T00:10:00+00:00"},
        {"data": ["68"], "ts": "2026-11-24T00:10:00+00:00"},
        {"data": "68" * 16_392, "ts": "2026-11-24T00:10:00+00:00"},
    ],
    ids=lambda envelope: str(envelope)[:60],
)
def test_an_envelope_that_is_not_whole_is_unusable(envelope: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        FORMS[5].frame(json.dumps(envelope).encode(), NOW)


def test_the_ends_of_time_are_no_error() -> None:
    def dated(stamp: str) -> bytes:
        return json.dumps({"data": "68", "ts": stamp}).encode()

    with pytest.raises(Stale):
        FORMS[5].frame(dated("0001-01-01T00:00:00+23:59"), NOW)
    assert FORMS[5].frame(dated("9999-12-31T23:59:59-23:59"), NOW) == b"\x68"


@pytest.mark.parametrize("stamp", ["1" + "0" * 400, "1e999", "-1e999", "NaN", "1" * 5000])
def test_numbers_without_end_are_unusable(stamp: str) -> None:
    with pytest.raises(Unusable):
        FORMS[3].frame(f'{{"data": "aBY=", "ts": {stamp}}}'.encode(), NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "ts", "x"]), inner),
    max_leaves=8,
)
hostile = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(FORMS), hostile)
def test_no_payload_raises_anything_else(payload: Payload, message: bytes) -> None:
    try:
        frame = payload.frame(message, NOW)
    except (Unusable, Stale):
        return
    assert 0 < len(frame) <= 16_391


@given(st.text(max_size=80) | st.from_regex(r"lingdian/[^/]{0,70}/(up|will|down)", fullmatch=True))
def test_no_topic_raises_anything_else(topic: str) -> None:
    try:
        place, terminal = TopicMap(Topics(), "g").where(topic)
    except Unusable:
        return
    assert topic == f"lingdian/{terminal}/{'will' if place == 'status' else place}"


@given(hostile)
def test_no_status_raises_anything_else(message: bytes) -> None:
    for topics in (Topics(), Topics(offline=("offline",)), Topics(offline=("0",), status_key="x")):
        try:
            topics.means_offline(message)
        except Unusable:
            continue


def test_topics_are_filled_and_found_again() -> None:
    topics = Topics(
        up=("a/{terminal}/up", "answers/{gateway}/{terminal}"),
        down="a/{terminal}/down/{gateway}",
        status="a/{terminal}/state",
        shared=("login/{terminal}",),
    )
    ours = TopicMap(topics, "g1")
    assert ours.of("02001234") == ["a/02001234/up", "answers/g1/02001234", "a/02001234/state"]
    assert ours.shared("heads") == ["$share/heads/login/+"]
    assert ours.shared(None) == ["login/+"]
    assert ours.down("02001234") == "a/02001234/down/g1"
    assert ours.where("answers/g1/02001234") == ("up", "02001234")
    assert ours.where("a/02001234/state") == ("status", "02001234")
    assert ours.where("login/02001234") == ("shared", "02001234")
    for strange in (
        "answers/g2/02001234",
        "a/02001234/down/g1",
        "a/0200/1234/up",
        "b/02001234/up",
        "a/x/up/",
    ):
        with pytest.raises(Unusable):
            ours.where(strange)


def test_what_a_status_means() -> None:
    assert Topics().means_offline(b"")
    words = Topics(offline=("offline", "Lost"))
    assert [words.means_offline(p) for p in (b"offline", b" OFFLINE\n", b"lost", b"online", b"")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    keyed = Topics(offline=("off",), status_key="state")
    assert keyed.means_offline(b'{"state": "off"}')
    assert not keyed.means_offline(b'{"state": "on"}')
    assert not keyed.means_offline(b'{"other": "off"}')


@pytest.mark.parametrize(
    "made",
    [
        lambda: Topics(down="lingdian/down"),
        lambda: Topics(up=("lingdian/t{terminal}/up",)),
        lambda: Topics(up=("lingdian/+/{terminal}",)),
        lambda: Topics(up=("lingdian/#", "{terminal}")),
        lambda: Topics(status="$SYS/{terminal}"),
        lambda: Topics(shared=("{terminal}/{terminal}",)),
        lambda: Topics(status_key="state"),
        lambda: Payload("raw", time_key="ts"),
        lambda: Payload("json", oldest_s=5),
        lambda: Payload("json", time_key="ts", oldest_s=0),
        lambda: MqttSettings(Broker("h"), gateway="a/b"),
        lambda: MqttSettings(Broker("h"), group="a b"),
        lambda: MqttSettings(Broker("h", unacknowledged=0)),
        lambda: MqttSettings(Broker("h"), expiry_s=0),
        lambda: MqttSettings(Broker("h"), held_messages=2049),
    ],
)
def test_wrong_settings_are_told(made: Any) -> None:
    with pytest.raises(ConfigurationError, match="MQTT"):
        made()


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(MqttSettings(Broker("h", user="u", password="secret")))
