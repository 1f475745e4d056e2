"""Terminals, points and meters as the company knows them, and what terminals say of themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.clock import to_device
from gateway.errors import InputError
from gateway.model import MeterClass, Point, PointRole, SignOfLife, TerminalAssets
from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit

PAGE_TERMINALS = 100
"""Terminals read at a time when all are walked through: at most 204,000 points, about 100 MB."""
UNREGISTERED_KEPT = 10_000
"""Strangers fill this list; people read its beginning."""


@dataclass(frozen=True, slots=True)
class UnregisteredTerminal:
    """A terminal that dialled in and is not in the assets."""

    address: str
    peer: str
    first_seen: datetime
    last_seen: datetime
    logins: int


async def terminal(database: Database, address: str) -> TerminalAssets | None:
    """One terminal by area code + address (`02001234`); None where the assets do not have it."""
    async with database.connection() as connection:
        page = await _page(connection, "", [address])
    return page[0] if page else None


async def changes(database: Database) -> int:
    """How often assets of terminals were changed, whichever they are: what was read after this number was had
    stands as long as it stays the same. Clocks, archives and customers are not counted."""
    async with database.reading() as connection:
        cursor = await connection.execute(queries("assets")["changes"])
        row = await cursor.fetchone()
    assert row is not None
    number: int = row[0]
    return number


async def terminals(database: Database, only: Collection[str] | None = None) -> AsyncIterator[TerminalAssets]:
    """All terminals (or those named) in the order of their addresses, streaming in pages."""
    async for page in pages(database, only):
        for one in page:
            yield one


async def pages(
    database: Database, only: Collection[str] | None = None
) -> AsyncIterator[list[TerminalAssets]]:
    """The same, a page of at most PAGE_TERMINALS at a time. No connection is held between two pages."""
    after = ""
    named = None if only is None else list(only)
    while True:
        async with database.connection() as connection:
            page = await _page(connection, after, named)
        if not page:
            return
        yield page
        after = page[-1].address


async def _page(connection: Connection, after: str, only: list[str] | None) -> list[TerminalAssets]:
    statements = queries("assets")
    cursor = await connection.execute(
        statements["terminal_page"], {"after": after, "only": only, "rows": PAGE_TERMINALS}
    )
    found = await cursor.fetchall()
    ids = [row[0] for row in found]
    points: defaultdict[int, list[Point]] = defaultdict(list)
    cursor = await connection.execute(statements["points"], (ids,))
    async for row in cursor:
        points[row[0]].append(
            Point(
                pn=row[1],
                meter_id=row[2],
                meter=row[3],
                address=row[4],
                protocol=row[5],
                meter_class=MeterClass(row[6]),
                role=PointRole(row[7]),
                tariffs=row[8],
                port=row[9],
                ct=row[10],
                pt=row[11],
                profile=row[12],
                valid_from=row[13],
                valid_to=row[14],
            )
        )
    archives: defaultdict[int, dict[int, str]] = defaultdict(dict)
    cursor = await connection.execute(statements["archives"], (ids,))
    async for terminal_id, pn, address in cursor:
        archives[terminal_id][pn] = address
    return [
        TerminalAssets(
            terminal_id=terminal_id,
            address=address,
            profile=profile,
            points=tuple(points[terminal_id]),
            archive=archives[terminal_id] if archive_read else None,
        )
        for terminal_id, address, profile, archive_read in found
    ]


async def save_archive(
    database: Database, terminal_id: int, archive: Mapping[int, str], seen_at: datetime
) -> None:
    """Replace what the terminal says its archive holds (pn -> meter address, 12 digits)."""
    statements = queries("assets")
    given = {
        "terminal_id": terminal_id,
        "seen_at": seen_at,
        "pns": list(archive.keys()),
        "addresses": list(archive.values()),
    }
    async with database.connection() as connection:
        await connection.execute(statements["archive_read"], given)
        await connection.execute(statements["forget_archive"], (terminal_id,))
        await connection.execute(statements["keep_archive"], given)


async def note_unregistered(database: Database, address: str, peer: str, at: datetime) -> None:
    """Count a login of a terminal the assets do not have. The list is bounded: the longest unseen go."""
    statements = queries("assets")
    async with database.connection() as connection:
        cursor = await connection.execute(
            statements["note_unregistered"], {"address": address, "peer": peer, "at": at}
        )
        row = await cursor.fetchone()
        if row is not None and row[0]:
            await connection.execute(statements["bound_unregistered"], (UNREGISTERED_KEPT,))


async def unregistered(database: Database) -> list[UnregisteredTerminal]:
    """The terminals that dialled in and are not in the assets, latest first."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("assets")["unregistered"])
        return [UnregisteredTerminal(*row) for row in await cursor.fetchall()]


async def login(database: Database, terminal_id: int, worker: str, peer: str, at: datetime) -> int:
    """Take the terminal over for `worker`: returns the new generation (1, 2, 3 … per terminal)."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("assets")["login"],
            {"terminal_id": terminal_id, "worker": worker, "peer": peer, "at": at},
        )
        row = await cursor.fetchone()
        assert row is not None
        generation: int = row[0]
        return generation


async def touch(database: Database, signs: Sequence[SignOfLife]) -> set[int]:
    """Note these, one a terminal; which terminals no other login has taken over since."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("assets")["touch"],
            {
                "terminals": [sign.terminal_id for sign in signs],
                "generations": [sign.generation for sign in signs],
                "ats": [sign.at for sign in signs],
            },
        )
        return {row[0] for row in await cursor.fetchall()}


async def note_clock(database: Database, terminal_id: int, offset_seconds: float, read_at: datetime) -> None:
    """Keep the terminal's clock offset (its clock minus ours) and when it was read."""
    async with database.connection() as connection:
        await connection.execute(
            queries("assets")["note_clock"],
            {"terminal_id": terminal_id, "offset": offset_seconds, "read_at": read_at},
        )


async def replace_meter(
    database: Database,
    old: str,
    new: str,
    *,
    address: str,
    at: datetime,
    stop_read: int,
    start_read: int,
    reason: str,
    who: str = "",
) -> None:
    """Close the install of meter `old` at instant `at`, open `new` there; it is noted in the audit.

    Reads are integers of 0.0001 kWh. `address` is the new meter's communication address. A meter that is not
    known yet is of the old one's kind. InputError where `old` is not installed at that instant, `new` is
    installed elsewhere, or the address is taken at that terminal.
    """
    if old == new:
        raise InputError(f"meter {old} cannot replace itself; give the number of the meter that comes")
    if not (len(address) == 12 and address.isascii() and address.isdecimal()):
        raise InputError(f"address {address!r} is not 12 digits; give the new meter's address with --address")
    statements = queries("assets")
    async with database.connection() as connection:
        install_id, terminal_id, terminal_address, pn = await _open_install(connection, old, at)
        await _check_successor(connection, new, at)
        given = {
            "old": old,
            "new": new,
            "address": address,
            "at": at,
            "stop_read": stop_read,
            "start_read": start_read,
            "reason": reason,
            "install_id": install_id,
            "terminal_id": terminal_id,
        }
        cursor = await connection.execute(statements["address_holder"], given)
        if holder := await cursor.fetchone():
            raise InputError(
                f"address {address} is that of meter {holder[0]}, p{holder[1]} of the same terminal;"
                " mend the assets, or give the right address"
            )
        cursor = await connection.execute(statements["add_like"], given)
        added = await cursor.fetchone()
        assert added is not None
        await connection.execute(statements["close_install"], given)
        await connection.execute(statements["open_successor"], given | {"meter_id": added[0]})
        detail = {
            "old": old,
            "new": new,
            "address": address,
            "terminal": terminal_address,
            "pn": pn,
            "at": at.isoformat(),
            "stop_read": stop_read,
            "start_read": start_read,
            "reason": reason,
        }
        await note_audit(connection, at, who, "replace meter", detail)


async def _open_install(connection: Connection, meter: str, at: datetime) -> tuple[int, int, str, int]:
    cursor = await connection.execute(queries("assets")["open_install"], (meter,))
    row = await cursor.fetchone()
    if row is None:
        raise InputError(f"meter {meter} is not installed anywhere; look for its number in the assets")
    install_id, terminal_id, terminal_address, pn, since = row
    if since is not None and since >= at:
        raise InputError(
            f"meter {meter} was installed at {to_device(since):%Y-%m-%d %H:%M} only; give a later time"
        )
    return install_id, terminal_id, terminal_address, pn


async def _check_successor(connection: Connection, meter: str, at: datetime) -> None:
    cursor = await connection.execute(queries("assets")["open_install"], (meter,))
    if row := await cursor.fetchone():
        raise InputError(
            f"meter {meter} is installed at terminal {row[2]}, p{row[3]}; take it out there first"
        )
    cursor = await connection.execute(queries("assets")["last_removal"], (meter,))
    row = await cursor.fetchone()
    if row is not None and row[0] is not None and row[0] > at:
        raise InputError(
            f"meter {meter} was installed elsewhere until {to_device(row[0]):%Y-%m-%d %H:%M};"
            " give a time after that"
        )
