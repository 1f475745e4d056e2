"""A small district in a database: terminals 02000001…, meters numbered through."""

from __future__ import annotations

from pathlib import Path

from gateway.storage import assets
from gateway.storage.database import Database
from gateway.storage.imports import import_assets


async def grow(database: Database, folder: Path, terminals: int, meters_each: int) -> list[int]:
    """Import so many; returns the meters' ids, in the order of terminals and points."""
    names = [f"0200{number:04x}" for number in range(1, terminals + 1)]
    (folder / "terminals.csv").write_text("\n".join(["terminal", *names]) + "\n")
    rows = [
        f"M{index * meters_each + pn:06d},{index * meters_each + pn:012d},{name},{pn}"
        for index, name in enumerate(names)
        for pn in range(1, meters_each + 1)
    ]
    (folder / "meters.csv").write_text("\n".join(["meter,address,terminal,pn", *rows]) + "\n")
    report = await import_assets(database, terminals=folder / "terminals.csv", meters=folder / "meters.csv")
    assert report.bad == 0
    return [point.meter_id async for one in assets.terminals(database) for point in one.points]
