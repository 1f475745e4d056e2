"""Two gateway processes share terminals over TCP and MQTT; one is killed in mid-sweep, and the other one's
sweep ends complete: no row lost, none doubled."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.end_to_end.gateway_of_a_pair import PLANTED
from tests.end_to_end.pair import Owner, Pair, Size
from tests.end_to_end.processes import until

pytestmark = [pytest.mark.end_to_end, pytest.mark.database, pytest.mark.timeout(300)]

TINY = Size(terminals=4, meters=48, heartbeat=2, lease=2.0, takeover=25.0)
SMALL = Size(terminals=20, meters=160, heartbeat=3, lease=3.0, takeover=25.0)
WHOLE = Size(terminals=200, meters=4_000, heartbeat=10, lease=15.0, takeover=60.0)

BY_SCHEDULE = Size(terminals=40, meters=1_600, heartbeat=3, lease=3.0, takeover=25.0, by_schedule=True)


def of(owners: dict[str, Owner], pid: int, *, by_mqtt: bool | None = None) -> dict[str, Owner]:
    """Terminals of that process, over either way or one."""
    return {
        name: one for name, one in owners.items()
        if one.pid == pid and by_mqtt in (None, one.by_mqtt)
    }  # fmt: skip


def taken_over(pair: Pair, lost: dict[str, Owner], generations: int) -> bool:
    """Have all of these logged in at the second gateway? generations: one for a login, and one more where the
    gateway has made itself their owner before."""
    now, pid = pair.owners(), pair.gateways[1].pid
    return all(
        now[name].pid == pid and now[name].generation >= one.generation + generations
        for name, one in lost.items()
    )


def one_dies_in_mid_sweep(pair: Pair) -> dict[str, float]:
    """The whole drill; its figures. AssertionError where anything is not as it should be."""
    dying, other = pair.gateways
    before = pair.owners()
    lost, kept = of(before, dying.pid), of(before, other.pid)
    died = dying.pid
    assert len(lost) + len(kept) == 2 * pair.size.terminals
    collecting = pair.collect()
    ways = [of(before, died, by_mqtt=by_mqtt) for by_mqtt in (False, True)]

    def begun() -> bool:
        assert pair.owners() == before, "nobody is taken over while both are alive"
        rows = pair.rows()
        return all(any(rows[name] for name in way) for way in ways)

    until(begun, 60.0, "the one that is to die has begun to store, over both ways")
    died_at = time.monotonic()
    dying.kill()
    stored = pair.rows()
    at_death = sum(stored.values())
    assert 0 < at_death < pair.due(), "it was in mid-sweep"

    tcp = pair.seconds_until(
        lambda: taken_over(pair, ways[0], 1),
        pair.size.takeover,
        "TCP terminals are taken over",
    )
    mqtt = tcp + pair.seconds_until(
        lambda: taken_over(pair, ways[1], 2),
        pair.size.takeover,
        "MQTT terminals are taken over",
    )
    if collecting is None:
        until(lambda: sum(pair.rows().values()) == pair.due(), 120.0, "the schedule has all")
    else:
        assert collecting.result()["missing"] == 0, collecting.result()
    now = pair.owners()
    assert {name: now[name] for name in kept} == kept, "who was not lost was not touched"
    comparison = pair.comparison()
    assert not comparison.wrong
    assert not comparison.absent
    rows = pair.rows()
    assert comparison.stored == sum(rows.values()) == pair.due()
    left = [sum(rows[name] - stored[name] for name in way) for way in ways]
    assert all(left), "there was something left to take over, over both ways"
    assert "two devices use one terminal address" not in other.log.read_text(encoding="utf-8")
    return {
        "lost_tcp": len(ways[0]),
        "lost_mqtt": len(ways[1]),
        "rows_at_death": at_death,
        "rows_left_by_tcp": left[0],
        "rows_left_by_mqtt": left[1],
        "rows": comparison.stored,
        "tcp_taken_over_s": round(tcp, 1),
        "mqtt_taken_over_s": round(mqtt, 1),
        "complete_s": round(time.monotonic() - died_at, 1),
    }


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(WHOLE, id="whole", marks=pytest.mark.long),
        pytest.param(BY_SCHEDULE, id="by schedule", marks=pytest.mark.long),
    ],
)
def test_one_of_two_gateways_dies_and_the_other_ends_complete(
    size: Size, tmp_path: Path, conninfo: str
) -> None:
    with ExitStack() as stack:
        print(json.dumps(one_dies_in_mid_sweep(Pair(tmp_path, conninfo, size, stack))))


@pytest.mark.parametrize(
    "bug", ["everybody is gone", pytest.param("nobody takes over", marks=pytest.mark.long)]
)
def test_a_planted_bug_is_seen(bug: str, tmp_path: Path, conninfo: str) -> None:
    with ExitStack() as stack:
        pair = Pair(tmp_path, conninfo, replace(TINY, takeover=8.0), stack, planted=bug)
        pair.begin_bug()
        with pytest.raises(AssertionError, match=PLANTED[bug].seen_as):
            one_dies_in_mid_sweep(pair)
        for gateway in pair.gateways:
            gateway.kill()  # a clean end would wait for the sweep


@pytest.mark.long
def test_one_that_hangs_loses_its_mqtt_terminals_and_finds_that_out(tmp_path: Path, conninfo: str) -> None:
    with ExitStack() as stack:
        pair = Pair(tmp_path, conninfo, TINY, stack)
        hanging, _ = pair.gateways
        lost = of(pair.owners(), hanging.pid, by_mqtt=True)
        assert lost
        hanging.signal(signal.SIGSTOP)
        try:
            until(lambda: taken_over(pair, lost, 2), TINY.takeover, "MQTT terminals are taken over")
        finally:
            hanging.signal(signal.SIGCONT)

        def left() -> int:
            return hanging.log.read_text(encoding="utf-8").count("terminal is another gateway's now")

        until(lambda: left() == len(lost), TINY.takeover, "it has left them")
        time.sleep(3 * TINY.heartbeat)  # if it took them back, it would be at a heartbeat
        assert taken_over(pair, lost, 2)
        pair.collect()
        until(lambda: sum(pair.rows().values()) == pair.due(), 60.0, "both have collected their own")
        assert not pair.comparison().wrong
        assert taken_over(pair, lost, 2)
