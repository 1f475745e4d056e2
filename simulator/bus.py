"""The meters behind a terminal, made when they are wanted first, and the lines on which they hear."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property

from protocols.dlt645.control_messages import RELAY_CONTROL, SECURITY
from protocols.dlt645.frame import BROADCAST, Frame, matches
from protocols.dlt645.frame import parse as parse_645
from protocols.errors import ProtocolError
from protocols.q_gdw376.values import Forward
from simulator.clock import seconds
from simulator.control import BASE_2007, PLAIN_PASSWORDS, Setup
from simulator.district import MeterPlan, TerminalPlan
from simulator.esam import BENCH_KEY
from simulator.faults import Faults, Relays
from simulator.ledger import Ledger, nowhere
from simulator.meter import Meter

LOST_CLOCK_BEGINS = seconds(datetime(2000, 1, 1))
"""What a clock shows when its battery and its supply have both been away."""


@dataclass(frozen=True, slots=True)
class Making:
    """How a district's meters are made. seed, started: the district's seed and its seconds at the start."""

    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    started: float = 0.0
    ledger: Ledger = nowhere
    master_key: bytes = field(default=BENCH_KEY, repr=False)

    def setup(self, plan: MeterPlan) -> Setup:
        """Of one meter: the same for equal arguments, whichever meters were made before."""
        faults = self.faults
        if not (faults.relays or faults.meter_clock_off or faults.meter_clock_lost):
            return Setup(master_key=self.master_key)
        draw = random.Random(f"{faults.seed}/{self.seed}/meter/{plan.address}").random
        relays = faults.relays or Relays()
        esam, base_text, permits, pressed, after, off, lost = (draw() for _ in range(7))
        setup = Setup(
            esam=esam < relays.esam,
            passwords=PLAIN_PASSWORDS if relays.plain_too else None,
            trip_delay_minutes=relays.trip_delay_minutes,
            current_limit_ma=round(relays.current_limit_a * 1000),
            keep_power_closes=permits >= relays.keep_power_permits,
            line_check_s=relays.line_check,
            spends_random=relays.spends_random,
            master_key=self.master_key,
        )
        if base_text < relays.base_text:
            setup = replace(setup, verbs=BASE_2007, status_words=False)
        if pressed < relays.pressed:
            least, most = relays.press_least, relays.press_most
            setup = replace(setup, press_after_s=least + after * (most - least))
        if faults.meter_clock_lost and lost < faults.meter_clock_lost.fraction:
            return replace(setup, clock_off_s=LOST_CLOCK_BEGINS - self.started)
        if faults.meter_clock_off and off < faults.meter_clock_off.fraction:
            return replace(setup, clock_off_s=faults.meter_clock_off.seconds)
        return setup


class Bus:
    """Of one terminal. missed_at: points whose meters froze nothing at the midnights `missed`."""

    def __init__(
        self,
        plan: TerminalPlan,
        making: Making,
        counts: Counter[str],
        missed_at: frozenset[int] = frozenset(),
        missed: frozenset[date] = frozenset(),
    ) -> None:
        self._plan = plan
        self._making = making
        self._counts = counts
        self._missed_at = missed_at
        self._missed = missed
        self._meters: dict[str, Meter] = {}
        self._restless: dict[str, Meter] = {}

    def ask(self, asked: Forward, now: float) -> bytes:
        """Say a 645 frame on its port: what one meter answers, b"" where none does, or several would."""
        content = asked.content.lstrip(b"\xfe")
        try:
            frame = parse_645(content)
        except ProtocolError:
            return b""
        # Only the meter itself can tell apart what a wildcard means; a module port routes by whole addresses.
        plans = self._meant(asked.port, frame.address)
        if len(plans) == 1:
            return self._say(plans[0], content, now)
        if frame.function in (RELAY_CONTROL, SECURITY):
            self._say_to_many(frame, asked.port, content, now)
        return b""

    def meter(self, plan: MeterPlan) -> Meter:
        """The meter itself."""
        meter = self._meters.get(plan.address)
        if meter is None:
            missed = self._missed if plan.pn in self._missed_at else frozenset()
            making = self._making
            meter = Meter(plan, missed, setup=making.setup(plan), ledger=making.ledger)
            self._meters[plan.address] = meter
        return meter

    def next_timeout(self) -> float | None:
        """When a relay is to move next."""
        times = (meter.next_timeout() for meter in self._restless.values())
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Let the relays move that were to by `now`."""
        for address, meter in list(self._restless.items()):
            meter.handle_timeout(now)
            if meter.next_timeout() is None:
                del self._restless[address]

    def _meant(self, port: int, address: str) -> Sequence[MeterPlan]:
        """Those on this port whose address that is, or may be."""
        if "A" in address:
            return [
                plan for plan in self._plan.meters if plan.port == port and matches(address, plan.address)
            ]
        return self._by_address.get((port, address), ())

    @cached_property
    def _by_address(self) -> dict[tuple[int, str], list[MeterPlan]]:
        """Made when something is forwarded first: most terminals of a large district never are asked to."""
        found: dict[tuple[int, str], list[MeterPlan]] = {}
        for plan in self._plan.meters:
            found.setdefault((plan.port, plan.address), []).append(plan)
        return found

    def _say(self, plan: MeterPlan, content: bytes, now: float) -> bytes:
        if plan.pn in self._missed_at:
            self._counts["missed_freeze"] += 1
        meter = self.meter(plan)
        meter.receive_data(content, now)
        if meter.next_timeout() is not None:
            self._restless[plan.address] = meter
        return meter.data_to_send()

    def _say_to_many(self, frame: Frame, port: int, content: bytes, now: float) -> None:
        """A control frame to all or to several: each of them witnesses it, and nobody makes out an answer."""
        for plan in self._plan.meters:
            if plan.port == port and (frame.address == BROADCAST or matches(frame.address, plan.address)):
                self._say(plan, content, now)
