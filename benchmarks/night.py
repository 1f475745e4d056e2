"""One night on a simulated clock: terminals are done reading their meters between 01:00 and 05:00.

The gateway's own schedule runs by itself. The picture shows how complete the day is as the night goes, beside
what the terminals had ready: `out/night.png`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from matplotlib.figure import Figure
from psycopg import AsyncConnection

from benchmarks.report import console, machine
from gateway.clock import SHANGHAI, frozen_at, to_device
from gateway.storage import embedded
from tests.end_to_end.ledger import compare
from tests.end_to_end.processes import Gateway, Simulator

TERMINALS, METERS = 100, 20_000
SPEED = 90.0
"""Simulated seconds a second: the night from 23:50 to 08:00 takes five and a half minutes."""
PICTURE = Path("out/night.png")


def run(
    terminals: int = TERMINALS, meters: int = METERS, speed: float = SPEED, picture: Path = PICTURE
) -> None:
    """Let the night pass, compare the day with the truth, and draw the curve."""
    machine(["psycopg", "matplotlib"])
    day = date(2026, 11, 23)
    start = datetime(2026, 11, 23, 23, 50, tzinfo=SHANGHAI)
    ends = datetime(2026, 11, 24, 8, 0, tzinfo=SHANGHAI)
    folder = Path(tempfile.mkdtemp(prefix="lingdian-night-"))
    origin = time.time() + 20.0  # by then both are up
    clock = [f"--clock-start={start.isoformat()}", f"--clock-origin={origin}", f"--clock-speed={speed}"]
    settings = {
        "LINGDIAN_COLLECTION__ENABLED": "true",
        "LINGDIAN_CLOCK__START": start.isoformat(),
        "LINGDIAN_CLOCK__ORIGIN": str(origin),
        "LINGDIAN_CLOCK__SPEED": str(speed),
        # half a second of a fast clock is half a minute
        "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "600",
        "LINGDIAN_SESSION__LOGIN_DEADLINE_SECONDS": "600",
    }
    try:
        with (
            Gateway(folder / "state", settings) as gateway,
            Simulator(
                folder, terminals=terminals, meters=meters, day=str(day),
                more=[*clock, "--ready-from=01:00", "--ready-until=05:00", "--heartbeat=600"],
            ) as simulator,
        ):  # fmt: skip
            simulator.grow()
            gateway.start()
            gateway.import_assets(simulator)
            simulator.connect(gateway.address)
            passes = origin + (ends - start).total_seconds() / speed
            while time.time() < passes:
                time.sleep(5.0)
                console.print(f"  {start + timedelta(seconds=(time.time() - origin) * speed):%H:%M}", end="")
            console.print()
            comparison = compare(
                simulator.truth, gateway.run("export", "readings", f"--from={day}", f"--to={day}")
            )
            stored, ready = asyncio.run(_times(gateway.state / "database", day))
            if comparison.wrong:
                raise AssertionError(f"{len(comparison.wrong)} readings are not what the meters held")
            total = comparison.stored + len(comparison.absent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"{comparison.stored:,} of {total:,} readings by 08:00, all equal to the truth")
    for share in (0.5, 0.9, 0.99, 1.0):
        place = max(0, round(total * share) - 1)
        reached = f"{to_device(stored[place]):%H:%M}" if place < len(stored) else "not reached"
        console.print(f"  {share:4.0%} complete at {reached}; ready at {_at(ready, place)}")
    _draw(stored, ready, total, picture)
    console.print(f"picture: {picture}")


def _at(times: list[datetime], place: int) -> str:
    return f"{to_device(times[place]):%H:%M}" if place < len(times) else "–"


async def _times(folder: Path, day: date) -> tuple[list[datetime], list[datetime]]:
    """When each reading of `day` was collected, and when its terminal had read it; both rising."""
    conninfo = await embedded.start(folder)
    try:
        async with await AsyncConnection.connect(conninfo) as connection:
            cursor = await connection.execute(
                "SELECT collected_at, read_at FROM register_reading WHERE frozen_at = %s AND kind = 1",
                (frozen_at(day),),
            )
            rows = await cursor.fetchall()
    finally:
        await embedded.stop(folder)
    return sorted(row[0].astimezone(UTC) for row in rows), sorted(
        row[1].astimezone(UTC) for row in rows if row[1]
    )


def _draw(stored: list[datetime], ready: list[datetime], total: int, picture: Path) -> None:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for times, label, style in ((ready, "read by the terminals", "--"), (stored, "stored", "-")):
        hours = [
            (one - times[0].astimezone(SHANGHAI).replace(hour=0, minute=0)).total_seconds() / 3600
            for one in times
        ]
        axes.step(hours, [100 * (n + 1) / total for n in range(len(times))], style, where="post", label=label)
    for hour, name in ((1.5, "01:30"), (4.0, "04:00"), (6.5, "06:30")):
        axes.axvline(hour, color="grey", linewidth=0.7)
        axes.annotate(f"pass {name}", (hour, 2), rotation=90, fontsize=8, color="grey")
    axes.set(xlim=(0, 8), ylim=(0, 102), xlabel="hour of the night, Asia/Shanghai", ylabel="complete, %")
    axes.set_title(f"A night of {total:,} readings")
    axes.legend(loc="upper left")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
