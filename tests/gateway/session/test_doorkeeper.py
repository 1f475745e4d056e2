"""Who may enter: whoever may have sent a frame of 376.1, and nobody that cannot have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.session.doorkeeper import LONG, TOLD_S, LoginDoorkeeper
from gateway.session.settings import SessionSettings
from gateway.transports.tcp_listener import Doorkeeper
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.stream import FoundFrame, FrameStream
from tests.gateway.session.stage import noon_clock

LOGIN = build(
    Frame(terminal="02001234", up=True, prm=True, function=9, afn=2, body=encode_unit(2, 1, 0), con=True)
)
ENDLESS = b"\x68\xa2\x0f\xa2\x0f\x68" + bytes(60)


class Desk:
    """A doorkeeper and what it hands on."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.metrics = Metrics()
        self.kept: list[tuple[str, str, bytes]] = []
        self.keeper = LoginDoorkeeper(
            SessionSettings(login_deadline_s=30.0),
            clock or noon_clock(),
            self.metrics,
            lambda *one: self.kept.append(one),
        )

    def enters(self, said: bytes) -> bool:
        return self.keeper.missing(bytearray(said)) == 0

    def wakes(self, said: bytes) -> list[int]:
        """After how many bytes it is asked, where the kernel wakes us for no fewer than were missing."""
        places = [0]
        while missing := self.keeper.missing(bytearray(said[: places[-1]])):
            if places[-1] + missing > len(said):
                break
            places.append(places[-1] + missing)
        return places


def test_it_is_what_the_listener_asks_for() -> None:
    keeper: Doorkeeper = Desk().keeper
    assert keeper.stay_s() > 0


@pytest.mark.parametrize(
    "before",
    [b"", b"\x00\xff", b"\xfe" * 4, b"\x68", b"\x68\x68", b"\x68\x01\x02", ENDLESS[:6]],
    ids=["nothing", "noise", "FE", "a start", "two starts", "half a header", "a lying header"],
)
def test_a_login_enters_with_its_last_byte_whatever_stands_before_it(before: bytes) -> None:
    desk = Desk()
    whole = before + LOGIN
    assert [cut for cut in range(len(whole) + 1) if desk.enters(whole[:cut])] == [len(whole)]


@given(
    st.one_of(
        st.binary(max_size=LONG), st.lists(st.sampled_from([b"\x68", ENDLESS[:6], b"\x00"])).map(b"".join)
    ),
    st.binary(max_size=40),
)
def test_nobody_sleeps_past_the_last_byte_of_a_frame(before: bytes, after: bytes) -> None:
    desk = Desk()
    said = before + LOGIN + after
    enters = [place for place in range(len(said) + 1) if desk.enters(said[:place])]
    assert desk.wakes(said)[-1] == enters[0]


def test_those_that_dribble_rarely_wake_anybody() -> None:
    desk = Desk()
    assert desk.wakes(bytes(100)) == [0, 20, 40, 60, 80, 100]
    assert desk.wakes(ENDLESS) == [0, 20, 40, 60]
    assert desk.wakes(LOGIN) == [0, len(LOGIN)]


def test_who_cannot_have_sent_a_frame_stays_outside_until_it_has_said_much() -> None:
    desk = Desk()
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", ENDLESS, b"\x68" * 5):
        assert not desk.enters(said)
    assert not desk.enters(bytes(LONG - 1))
    assert desk.enters(bytes(LONG))


@given(st.binary(max_size=LONG), st.binary(max_size=40))
def test_whatever_the_stream_finds_a_frame_in_enters(before: bytes, after: bytes) -> None:
    said = before + LOGIN + after
    stream = FrameStream()
    stream.receive_data(said)
    found = False
    while (event := stream.next_event()) is not None:
        found = found or isinstance(event, FoundFrame)
    assert Desk().enters(said) or not found


def test_peers_stay_between_the_deadline_and_a_quarter_more_each_for_itself() -> None:
    keeper = Desk().keeper
    stays = [keeper.stay_s() for _ in range(1000)]
    assert 30.0 <= min(stays) < 31.0
    assert 36.5 < max(stays) <= 37.5


def test_a_fast_clock_shortens_the_stay() -> None:
    keeper = Desk(noon_clock(10.0)).keeper
    assert 3.0 <= keeper.stay_s() <= 3.75


def test_all_are_counted_and_one_a_minute_is_told() -> None:
    class Stepped(Clock):
        moment = 0.0

        def monotonic(self) -> float:
            return self.moment

    desk = Desk(Stepped())
    with capture_logs() as logs:
        for number in range(100):
            desk.keeper.turned_away(f"192.0.2.1:{number}", b"\x01\x02")
        Stepped.moment = TOLD_S
        desk.keeper.turned_away("192.0.2.1:100", b"")
    assert [(one["peer"], one["said"], one["others"]) for one in logs] == [
        ("192.0.2.1:0", "01 02", 0),
        ("192.0.2.1:100", "", 99),
    ]
    assert [(of, raw) for of, _, raw in desk.kept] == [("192.0.2.1:0", b"\x01\x02")]
    assert desk.metrics.registry.get_sample_value("lingdian_peers_turned_away_total") == 101
