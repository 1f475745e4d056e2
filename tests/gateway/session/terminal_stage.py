"""Settings that soon give up, a device whose clock is off, and why an answer lacks meters."""

from __future__ import annotations

from datetime import timedelta

from gateway.clock import Clock, to_device
from gateway.model import Reason
from gateway.session.settings import SessionSettings
from gateway.session.terminal import FrozenAnswer
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import Device

QUICK = SessionSettings(reply_timeout_s=0.1, repeats=1)


def reasons(answer: FrozenAnswer) -> dict[int, Reason]:
    return {failure.meter_id: failure.reason for failure in answer.failures}


def with_clock(device: Device, clock: Clock, ahead: dict[str, float]) -> None:
    """A device whose clock is `ahead["s"]` seconds ahead, until it is set."""

    def tell(asked: Frame) -> list[bytes]:
        shown = to_device(clock.now()).replace(microsecond=0) + timedelta(seconds=ahead["s"])
        return [encode_unit(0x0C, 2, 0, messages.Clock(shown, shown.isoweekday()))]

    def be_set(asked: Frame) -> bytes:
        value = messages.decode(asked)[0].value
        assert isinstance(value, messages.Clock)
        assert value.at is not None
        ahead["s"] = (value.at - to_device(clock.now())).total_seconds()
        return device.confirm(asked)

    device.answers[0x0C, 2] = tell
    device.answers[0x05, 31] = be_set
