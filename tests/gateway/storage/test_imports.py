"""terminals.csv and meters.csv: the good comes in, the bad is named, and again changes only what changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import InputError
from gateway.model import MeterClass, Point, PointRole
from gateway.storage import assets, csv_files
from gateway.storage.database import Database
from gateway.storage.imports import ImportReport, import_assets

pytestmark = pytest.mark.database

METERS = (
    "meter,address,terminal,pn,port,protocol,tariffs,class,role,relay_kind,ct,pt,valid_from,profile,cons_no"
)
SWAP = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


class Files:
    """Writes the files and imports them."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.terminals = folder / "terminals.csv"
        self.meters = folder / "meters.csv"
        self._database = database

    async def bring_terminals(
        self, *rows: str, header: str = "terminal", keep_going: bool = False
    ) -> ImportReport:
        self.terminals.write_text("\n".join([header, *rows]) + "\n")
        return await import_assets(self._database, terminals=self.terminals, keep_going=keep_going)

    async def bring_meters(
        self, *rows: str, header: str = "meter,address,terminal,pn,valid_from", keep_going: bool = False
    ) -> ImportReport:
        self.meters.write_text("\n".join([header, *rows]) + "\n")
        return await import_assets(self._database, meters=self.meters, keep_going=keep_going)

    async def points(self, address: str = "02000001") -> list[Point]:
        found = await assets.terminal(self._database, address)
        assert found is not None
        return list(found.points)

    def said(self, report: ImportReport) -> list[str]:
        """The problems without the folder's name."""
        return [problem.removeprefix(f"{self.meters.parent}/") for problem in report.problems]


@pytest.fixture
async def files(tmp_path: Path, database: Database) -> Files:
    made = Files(tmp_path, database)
    await made.bring_terminals("02000001", "02000002")
    return made


def number(n: int) -> str:
    return f"{n:012d}"


async def test_every_column_arrives(files: Files) -> None:
    report = await files.bring_meters(
        f"A1,{number(1)},0200000A,7,2,dlt645-1997,2,three_phase,area_gateway,none,40,10,2026-01-01,old,C9",
        header=METERS,
        keep_going=True,
    )
    assert report.bad == 1
    await files.bring_terminals("0200000A")
    assert (await files.bring_meters(*_second_line(files), header=METERS)).new == 1
    (point,) = await files.points("0200000a")
    assert point == Point(
        pn=7,
        meter_id=point.meter_id,
        meter="A1",
        address=number(1),
        protocol="dlt645-1997",
        meter_class=MeterClass.THREE_PHASE,
        role=PointRole.AREA_GATEWAY,
        tariffs=2,
        port=2,
        ct=40,
        pt=10,
        profile="old",
        valid_from=datetime(2025, 12, 31, 16, 0, tzinfo=UTC),
        valid_to=None,
    )


def _second_line(files: Files) -> Sequence[str]:
    return files.meters.read_text().splitlines()[1:]


async def test_what_is_left_out_has_its_default(files: Files) -> None:
    assert await files.bring_meters(f"{number(5)},02000001,3", header="address,terminal,pn") == ImportReport(
        new=1
    )
    (point,) = await files.points()
    assert (point.meter, point.port, point.tariffs, point.ct, point.pt) == (number(5), 31, 4, 1, 1)
    assert (point.meter_class, point.role) == (MeterClass.SINGLE_PHASE, PointRole.CUSTOMER)
    assert (point.valid_from, point.protocol, point.profile) == (None, "dlt645-2007", "")


async def test_again_changes_only_what_changed(files: Files, database: Database) -> None:
    rows = [f"M{n},{number(n)},02000001,{n},," for n in range(1, 6)]
    header = "meter,address,terminal,pn,tariffs,cons_no"
    assert await files.bring_meters(*rows, header=header) == ImportReport(new=5)
    assert await files.bring_meters(*rows, header=header) == ImportReport(same=5)
    rows[1] = f"M2,{number(2)},02000001,2,1,"
    rows[3] = f"M4,{number(4)},02000001,4,,C1"
    assert await files.bring_meters(*rows, header=header) == ImportReport(same=3, changed=2)
    assert [point.tariffs for point in await files.points()] == [4, 1, 4, 4, 4]
    # an empty cell leaves what is there
    rows[1] = f"M2,{number(2)},02000001,2,,"
    assert await files.bring_meters(*rows, header=header) == ImportReport(same=5)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT number, version FROM meter ORDER BY number")
        assert await cursor.fetchall() == [("M1", 1), ("M2", 2), ("M3", 1), ("M4", 1), ("M5", 1)]


async def test_terminals_again_change_only_what_changed(files: Files) -> None:
    header = "terminal,profile,organisation,area"
    report = await files.bring_terminals("02000001,east,供电所,一号台区", "02000003,,供电所,", header=header)
    assert report == ImportReport(new=1, changed=1)
    report = await files.bring_terminals("02000001,,,二号台区", "02000003,,,", header=header)
    assert report == ImportReport(same=1, changed=1)


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("address", "12345678901", "12 digits"),
        ("address", "A00000000001", "12 digits"),
        ("address", "１２３４５６７８９０１２", "12 digits"),
        ("address", "9" * 12, "broadcast"),
        ("terminal", "0200001", "area code, 4 digits"),
        ("terminal", "02000G01", "area code, 4 digits"),
        ("terminal", "0200ffff", "names nobody"),
        ("terminal", "02000009", "not in the assets"),
        ("pn", "0", "1 to 2040"),
        ("pn", "2041", "1 to 2040"),
        ("pn", "-1", "1 to 2040"),
        ("pn", "1.0", "1 to 2040"),
        ("port", "32", "1 to 31"),
        ("tariffs", "64", "1 to 63"),
        ("protocol", "dlt645", "dlt645-2007, dlt645-1997"),
        ("class", "single", "single_phase, three_phase"),
        ("role", "meter", "customer, area_gateway"),
        ("relay_kind", "yes", "built_in"),
        ("ct", "0", "1 to 1000000"),
        ("pt", "-5", "1 to 1000000"),
        ("valid_from", "2026-13-01", "a date or an instant"),
        ("valid_from", "01/11/2026", "a date or an instant"),
        ("valid_from", "1926-11-01", "between 2000 and 2100"),
        ("meter", "x" * 101, "longer than 100"),
        ("address", "", "is empty"),
        ("pn", "", "is empty"),
        ("terminal", "", "is empty"),
    ],
)
async def test_a_bad_cell_is_named_with_file_line_and_column(
    files: Files, column: str, cell: str, reason: str
) -> None:
    good = dict(zip(METERS.split(","), METERS.split(","), strict=True)) | {
        **{"meter": "M1", "address": number(1), "terminal": "02000001", "pn": "1", "port": "31"},
        **{"protocol": "dlt645-2007", "tariffs": "4", "class": "single_phase", "role": "customer"},
        **{"relay_kind": "built_in", "ct": "1", "pt": "1", "valid_from": "", "profile": "", "cons_no": ""},
    }
    rows = [",".join((good | {"meter": "M2", "address": number(2), "pn": "2"}).values())]
    rows.append(",".join((good | {column: cell}).values()))
    report = await files.bring_meters(*rows, header=METERS)
    assert report.bad == 1
    (problem,) = files.said(report)
    assert problem.startswith(f'meters.csv:3: {column} "')
    assert reason in problem
    assert await files.points() == []
    report = await files.bring_meters(*rows, header=METERS, keep_going=True)
    assert (report.new, report.bad) == (1, 1)
    assert [point.meter for point in await files.points()] == ["M2"]


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        (f"M1,{number(1)},02000001,1,", f"M1,{number(2)},02000001,2,", "meter"),
        (f"M1,{number(1)},02000001,1,", f"M2,{number(1)},02000001,2,", "address"),
        (f"M1,{number(1)},02000001,1,", f"M2,{number(2)},02000001,1,", "pn"),
        (f"M1,{number(1)},02000001,1,2026-01-01", f"M2,{number(2)},02000001,1,2026-01-01T00:00:00", "pn"),
    ],
)
async def test_rows_that_cannot_both_be_name_each_other(
    files: Files, first: str, second: str, column: str
) -> None:
    report = await files.bring_meters(f"M9,{number(9)},02000001,9,", first, second, keep_going=True)
    assert (report.new, report.bad) == (1, 2)
    one, other = files.said(report)
    assert one.startswith(f"meters.csv:3: {column} ")
    assert "line 4 too" in one
    assert other.startswith(f"meters.csv:4: {column} ")
    assert "line 3 too" in other


async def test_a_terminal_twice_names_both_lines(files: Files) -> None:
    report = await files.bring_terminals("0200000a", "0200000A", "0200000b")
    assert report.bad == 2
    assert ["line 3" in problem for problem in report.problems] == [True, False]


async def test_a_meter_follows_another_at_its_place(files: Files) -> None:
    await files.bring_meters(f"OLD,{number(1)},02000001,1,")
    report = await files.bring_meters(
        f"OLD,{number(1)},02000001,1,", f"NEW,{number(2)},02000001,1,2026-11-20T10:00:00"
    )
    assert report == ImportReport(new=1, same=1)
    old, new = await files.points()
    assert (old.meter, old.valid_from, old.valid_to) == ("OLD", None, SWAP)
    assert (new.meter, new.valid_from, new.valid_to) == ("NEW", SWAP, None)
    assert await files.bring_meters(*_second_line(files)) == ImportReport(same=2)


async def test_both_in_one_new_file_follow_one_another(files: Files, database: Database) -> None:
    rows = [f"NEW,{number(2)},02000001,1,2026-11-20T10:00:00+08:00", f"OLD,{number(1)},02000001,1,"]
    assert await files.bring_meters(*rows) == ImportReport(new=2)
    assert [(p.meter, p.valid_from, p.valid_to) for p in await files.points()] == [
        ("OLD", None, SWAP),
        ("NEW", SWAP, None),
    ]
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM metering_point")
        assert await cursor.fetchone() == (1,)


async def test_a_place_that_is_held_is_not_taken_without_a_time(files: Files) -> None:
    await files.bring_meters(f"OLD,{number(1)},02000001,1,")
    report = await files.bring_meters(f"NEW,{number(2)},02000001,1,")
    assert report.bad == 1
    (problem,) = files.said(report)
    assert problem.startswith('meters.csv:2: pn "1": is held by meter OLD')
    assert "lingdian replace OLD" in problem


async def test_a_stale_file_does_not_bring_back_a_replaced_meter(files: Files, database: Database) -> None:
    rows = [f"OLD,{number(1)},02000001,1,"]
    await files.bring_meters(*rows)
    await assets.replace_meter(
        database, "OLD", "NEW", address=number(2), at=SWAP, stop_read=5_0000, start_read=0, reason=""
    )
    assert await files.bring_meters(*rows) == ImportReport(same=1)
    assert [(p.meter, p.valid_to) for p in await files.points()] == [("OLD", SWAP), ("NEW", None)]


async def test_a_wrong_place_is_corrected_and_a_later_one_is_a_move(files: Files) -> None:
    await files.bring_meters(f"M1,{number(1)},02000001,1,")
    assert await files.bring_meters(f"M1,{number(1)},02000001,2,") == ImportReport(changed=1)
    (point,) = await files.points()
    assert (point.pn, point.valid_from, point.valid_to) == (2, None, None)
    report = await files.bring_meters(f"M1,{number(1)},02000002,5,2026-11-20T10:00")
    assert report == ImportReport(changed=1)
    (gone,) = await files.points()
    (here,) = await files.points("02000002")
    assert (gone.pn, gone.valid_to) == (2, SWAP)
    assert (here.pn, here.valid_from, here.valid_to) == (5, SWAP, None)


async def test_two_meters_change_places(files: Files) -> None:
    await files.bring_meters(f"M1,{number(1)},02000001,1,", f"M2,{number(2)},02000001,2,")
    report = await files.bring_meters(f"M1,{number(1)},02000001,2,", f"M2,{number(2)},02000001,1,")
    assert report == ImportReport(changed=2)
    assert [(p.pn, p.meter) for p in await files.points()] == [(1, "M2"), (2, "M1")]


async def test_an_address_that_a_neighbour_has_is_refused(files: Files) -> None:
    await files.bring_meters(f"M1,{number(1)},02000001,1,")
    report = await files.bring_meters(f"M2,{number(1)},02000001,2,")
    assert report.bad == 1
    assert "that of meter M1 at p1" in files.said(report)[0]
    # at another terminal it is another meter's business
    assert (await files.bring_meters(f"M2,{number(1)},02000002,2,")).new == 1


async def test_a_meter_that_was_elsewhere_until_later_is_refused(files: Files, database: Database) -> None:
    await files.bring_meters(f"M1,{number(1)},02000001,1,")
    await assets.replace_meter(
        database, "M1", "M2", address=number(2), at=SWAP, stop_read=0, start_read=0, reason=""
    )
    report = await files.bring_meters(f"M1,{number(1)},02000002,1,2026-11-01")
    assert "was elsewhere until 2026-11-20 10:00" in files.said(report)[0]
    assert (await files.bring_meters(f"M1,{number(1)},02000002,1,2026-11-21")).changed == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
async def test_encodings_and_line_ends_of_spreadsheets(
    files: Files, database: Database, encoding: str, ending: str
) -> None:
    rows = [
        "terminal,profile,organisation,area",
        "02000007,,城东供电所,幸福里一号台区",
        "",
        ",,,",
        '02000008,,"a,b",',
    ]
    files.terminals.write_bytes(ending.join(rows).encode(encoding))
    report = await import_assets(database, terminals=files.terminals)
    assert (report.new, report.bad) == (2, 0)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT name FROM organisation ORDER BY name")
        assert await cursor.fetchall() == [("a,b",), ("城东供电所",)]
        cursor = await connection.execute("SELECT name FROM area")
        assert await cursor.fetchall() == [("幸福里一号台区",)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"terminal,colour\n02000001,red\n", 'unknown column "colour"'),
        (b"terminal,terminal\n02000001,02000001\n", "stands twice"),
        (b"profile\nx\n", 'column "terminal" is missing'),
        ("terminal\n".encode("utf-16"), "UTF-16"),
        (b"terminal,area\n02000001,\xff\xff\xff\n", "neither UTF-8 nor GBK"),
        (b"terminal;area\n02000001;x\n", 'unknown column "terminal;area"'),
    ],
)
async def test_a_file_that_is_no_table_of_ours_says_what_it_needs(
    files: Files, database: Database, content: bytes, reason: str
) -> None:
    files.terminals.write_bytes(content)
    with pytest.raises(InputError) as told:
        await import_assets(database, terminals=files.terminals, keep_going=True)
    assert reason in str(told.value)
    assert "terminals.csv" in str(told.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"0200\x000011", "NUL"),
        (b"02000011," + b"x" * 50_000, "longer than"),
        (b"02000011,a,b,c", "has 4 cells"),
        (b'02000011,"open', "no CSV row"),
        (b'02000011,"a"b', "no CSV row"),
    ],
)
async def test_a_line_that_is_no_row_is_named_and_the_rest_goes_on(
    files: Files, database: Database, line: bytes, reason: str
) -> None:
    files.terminals.write_bytes(b"terminal,area\n02000010,\n" + line + b"\n02000012,\n")
    report = await import_assets(database, terminals=files.terminals, keep_going=True)
    assert (report.new, report.bad) == (2, 1)
    assert report.problems[0].startswith(f"{files.terminals}:3:")
    assert reason in report.problems[0]


async def test_a_file_that_is_not_there_is_an_input_error(database: Database, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        await import_assets(database, meters=tmp_path / "none.csv")


async def test_problems_are_bounded_and_counted(files: Files) -> None:
    rows = [f"M{n},{number(n)},02000001,9999," for n in range(1, 1001)]
    report = await files.bring_meters(*rows)
    assert report.bad == 1000
    assert len(report.problems) == csv_files.PROBLEMS_SHOWN
    assert files.said(report)[-1].startswith(f"meters.csv:{csv_files.PROBLEMS_SHOWN + 1}:")


async def test_without_keep_going_nothing_is_written_of_either_file(files: Files, database: Database) -> None:
    files.terminals.write_text("terminal\n02000005\n")
    files.meters.write_text(f"address,terminal,pn\n{number(1)},02000005,1\n{number(2)},02000005,0\n")
    report = await import_assets(database, terminals=files.terminals, meters=files.meters)
    assert report.bad == 1
    assert await assets.terminal(database, "02000005") is None
    report = await import_assets(
        database, terminals=files.terminals, meters=files.meters, keep_going=True, who="li"
    )
    assert (report.new, report.bad) == (2, 1)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT who, what FROM audit ORDER BY audit_id DESC LIMIT 1")
        assert await cursor.fetchone() == ("li", "import assets")


async def test_a_stranger_is_greeted_when_it_comes_into_the_assets(database: Database, files: Files) -> None:
    await assets.note_unregistered(database, "02000077", "peer", SWAP)
    await files.bring_terminals("02000077")
    assert await assets.unregistered(database) == []


async def test_a_large_import_takes_seconds(files: Files) -> None:
    await files.bring_terminals(*(f"0300{n:04x}" for n in range(1, 51)))
    rows = [f"{number(n)},0300{n % 50 + 1:04x},{n // 50 + 1}" for n in range(20_000)]
    began = time.monotonic()
    assert (await files.bring_meters(*rows, header="address,terminal,pn")).new == 20_000
    # 20,000 rows take a second or two alone; a row-by-row or quadratic step takes minutes
    assert time.monotonic() - began < 60
