"""The conflict rule against a plain model of it; and the same test finds the rule missing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import gateway.storage.readings as readings_module
from gateway.model import Quality, ReadingRow, Source
from gateway.storage.database import Database, queries
from gateway.storage.readings import Filed, ReadingWriter
from tests.gateway.storage.rows import MIDNIGHT, row

pytestmark = pytest.mark.database

DECIMALS = {Source.METER: 2, Source.TERMINAL: 4, Source.PUSHED: 4, Source.MANUAL: 2}
Registers = tuple[int | None, ...]
Between = Callable[[Database], Awaitable[object]]


@dataclass(frozen=True)
class Reading:
    """One reading as the model holds it: `fine[i]` says that registers[i] is known to four decimals; the
    sixth register stands for all further tariffs together."""

    registers: Registers
    further: tuple[int | None, ...] | None
    fine: tuple[bool, ...]
    source: int
    quality: int
    read_at: object


def of(given: ReadingRow) -> Reading:
    registers, further = given[4:9], given[9]
    four = DECIMALS[Source(given[12])] == 4
    fine = (*(four and value is not None for value in registers), four and further is not None)
    return Reading(
        registers, None if further is None else tuple(further), fine, given[12], given[13], given[10]
    )


def cut(value: int) -> int:
    """To two decimals, towards zero."""
    return value // 100 if value >= 0 else -(-value // 100)


def agree(a: int | None, b: int | None, coarse: bool) -> bool:
    if a is None or b is None:
        return True
    return cut(a) == cut(b) if coarse else a == b


def merge(old: int | None, new: int | None, finer: bool) -> int | None:
    return new if old is None or (finer and new is not None) else old


def judge(old: Reading, new: Reading) -> tuple[str, Reading, Reading | None]:
    """Outcome, what stands then, what is kept aside."""
    # an absent register is known to nothing; two that are compared are as coarse as the coarser
    coarse = [not (a and b) for a, b in zip(old.fine, new.fine, strict=True)]
    finer = [b and not a for a, b in zip(old.fine, new.fine, strict=True)]
    pairs = list(itertools.zip_longest(old.further or (), new.further or ()))
    agreed = all(
        agree(a, b, c) for a, b, c in zip(old.registers, new.registers, coarse[:5], strict=True)
    ) and (old.further is None or new.further is None or all(agree(a, b, coarse[5]) for a, b in pairs))
    if not agreed:
        return ("won", new, old) if new.source < old.source else ("lost", old, new)
    registers = tuple(merge(a, b, f) for a, b, f in zip(old.registers, new.registers, finer[:5], strict=True))
    if old.further is None or new.further is None:
        further = old.further if new.further is None else new.further
    else:
        further = tuple(merge(a, b, finer[5]) for a, b in pairs)
    better = new if new.source < old.source else old
    fine = tuple(a or b for a, b in zip(old.fine, new.fine, strict=True))
    stands = replace(better, registers=registers, further=further, fine=fine)
    return ("equal" if stands == old else "filled"), stands, None


class Model:
    """Rows filed one after another."""

    def __init__(self) -> None:
        self.stands: dict[int, Reading] = {}
        self.aside: set[tuple[int, Registers, tuple[int | None, ...] | None, int]] = set()

    def file(self, given: ReadingRow) -> str:
        meter_id, new = given[0], of(given)
        old = self.stands.get(meter_id)
        if old is None:
            self.stands[meter_id] = new
            return "new"
        outcome, self.stands[meter_id], aside = judge(old, new)
        if aside is not None:
            self.aside.add((meter_id, aside.registers, aside.further, aside.source))
        return outcome


class Filing:
    """A database and a loop that outlive the examples of one test; each example has meters of its own."""

    def __init__(self, conninfo: str) -> None:
        self._runner = asyncio.Runner()
        self._database: Database = self._runner.run(Database.open(conninfo))
        self._base = 0

    def close(self) -> None:
        self._runner.run(self._database.close())
        self._runner.close()

    def check(self, batches: list[list[list[ReadingRow]]], between: Between | None = None) -> None:
        """File batches of calls of rows, and the same rows into the model: both must end the same. `between`
        is done after each batch."""
        self._base += 100
        moved = [[[(one[0] + self._base, *one[1:]) for one in call] for call in batch] for batch in batches]
        model = Model()
        told = [[[model.file(one) for one in call] for call in batch] for batch in moved]
        stands, aside, filed = self._runner.run(self._file(moved, between))
        assert stands == model.stands
        assert aside == model.aside
        for answers, outcomes in zip(filed, told, strict=True):
            for answer, words in zip(answers, outcomes, strict=True):
                assert answer == Filed(**{word: words.count(word) for word in set(words)})

    async def _file(
        self, batches: list[list[list[Any]]], between: Between | None
    ) -> tuple[Any, Any, list[list[Filed]]]:
        filed = []
        async with ReadingWriter(self._database, idle_seconds=0.0) as writer:
            for batch in batches:
                filed.append(await asyncio.gather(*(writer.file(call) for call in batch)))
                if between is not None:
                    await between(self._database)
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT meter_id, total, t1, t2, t3, t4, further, coarse, source, quality, read_at"
                " FROM register_reading WHERE meter_id > %s",
                (self._base,),
            )
            stands = {
                meter_id: Reading(
                    tuple(registers),
                    None if further is None else tuple(further),
                    tuple(not coarse & 1 << bit for bit in range(6)),
                    source,
                    quality,
                    read_at,
                )
                for meter_id, *registers, further, coarse, source, quality, read_at in await cursor.fetchall()
            }
            cursor = await connection.execute(
                "SELECT meter_id, total, t1, t2, t3, t4, further, source FROM reading_conflict"
                " WHERE meter_id > %s",
                (self._base,),
            )
            kept = [
                (meter_id, tuple(registers), None if further is None else tuple(further), source)
                for meter_id, *registers, further, source in await cursor.fetchall()
            ]
        assert len(set(kept)) == len(kept), "kept twice"
        return stands, set(kept), filed


@pytest.fixture
def filing(conninfo: str) -> Iterator[Filing]:
    made = Filing(conninfo)
    yield made
    made.close()


VALUES = st.sampled_from(
    [None, 12_345_600, 12_345_678, 12_345_699, 12_345_700, 0, 99, -12_345_678, -12_345_600, -99]
)
ROWS = st.builds(
    lambda meter_id, total, tariffs, further, source, quality, minutes: row(
        meter_id,
        total,
        tariffs,
        further=further,
        source=source,
        quality=quality,
        read_at=None if minutes is None else MIDNIGHT + timedelta(minutes=minutes),
    ),
    st.integers(1, 3),
    VALUES,
    st.one_of(st.just((None,) * 4), st.tuples(VALUES, VALUES, st.none(), st.none())),
    st.one_of(st.none(), st.lists(VALUES, min_size=1, max_size=3)),
    st.sampled_from(Source),
    st.sampled_from(Quality),
    st.one_of(st.none(), st.integers(0, 3)),
)
BATCHES = st.lists(
    st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=3), min_size=1, max_size=4
)
TERMINAL_THEN_METER = [[[row(1, 12_345_678)]], [[row(1, 12_345_600, source=Source.METER)]]]
PUSHED_THEN_OTHER = [[[row(1, 100, source=Source.PUSHED)]], [[row(1, 200)]]]
FILLED_LATER = [[[row(1, 100)]], [[row(1, 100, (40, 60, None, None))]]]
SAME_CALL = [[[row(1, 100), row(1, 200), row(1, 100)], [row(1, 300, source=Source.METER)]]]


@given(BATCHES)
@example(TERMINAL_THEN_METER)
@example(PUSHED_THEN_OTHER)
@example(FILLED_LATER)
@example(SAME_CALL)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filing_follows_the_rule(filing: Filing, batches: list[list[list[ReadingRow]]]) -> None:
    filing.check(batches)


WITHOUT_RULE = b"""
    INSERT INTO register_reading (frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further,
        read_at, collected_at, source, quality, coarse)
    SELECT frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further,
        read_at, collected_at, source, quality, coarse FROM reading_staging
    ON CONFLICT DO NOTHING RETURNING 0, 'new', 0
"""


@pytest.mark.parametrize("batches", [TERMINAL_THEN_METER, PUSHED_THEN_OTHER, FILLED_LATER, SAME_CALL])
def test_without_the_rule_the_model_disagrees(
    filing: Filing, batches: list[list[list[ReadingRow]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(room: str) -> Mapping[str, bytes]:
        return {**queries(room), "file_staged": WITHOUT_RULE}

    monkeypatch.setattr(readings_module, "queries", broken)
    with pytest.raises(AssertionError):
        filing.check(batches)


def test_without_the_rule_generated_rows_find_it(filing: Filing, monkeypatch: pytest.MonkeyPatch) -> None:
    @given(BATCHES)
    @settings(max_examples=100, deadline=None, database=None, phases=[Phase.generate])
    def check(batches: list[list[list[ReadingRow]]]) -> None:
        filing.check(batches)

    monkeypatch.setattr(
        readings_module, "queries", lambda room: {**queries(room), "file_staged": WITHOUT_RULE}
    )
    with pytest.raises(AssertionError):
        check()


async def test_a_confirmed_value_keeps_its_fine_digits_and_names_the_better_source(
    database: Database,
) -> None:
    async with ReadingWriter(database) as writer:
        await writer.file([row(1, 12_345_678, quality=Quality.CONTESTED)])
        assert (await writer.file([row(1, 12_345_600, source=Source.METER)])).filled == 1
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT total, source, quality FROM register_reading")
        assert await cursor.fetchone() == (12_345_678, Source.METER, Quality.GOOD)


async def test_the_same_conflict_again_is_kept_once_and_the_first_stays(database: Database) -> None:
    async with ReadingWriter(database) as writer:
        await writer.file([row(1, 100)])
        for _ in range(3):
            assert (await writer.file([row(1, 200)])).lost == 1
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT total FROM register_reading")
        assert await cursor.fetchall() == [(100,)]
        cursor = await connection.execute("SELECT total, source FROM reading_conflict")
        assert await cursor.fetchall() == [(200, Source.TERMINAL)]


async def test_two_writers_at_once_end_as_one_after_another(database: Database) -> None:
    rows = [row(meter_id, 100 * meter_id) for meter_id in range(1, 2001)]
    other = [row(meter_id, 100 * meter_id + 1, source=Source.METER) for meter_id in range(1, 2001)]
    async with ReadingWriter(database, batch_rows=200) as one, ReadingWriter(database, batch_rows=300) as two:
        filed = await asyncio.gather(one.file(rows), two.file(other), one.file(rows), two.file(other))
    assert sum(filed, Filed()).new == 2000
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE source = 1) FROM register_reading"
        )
        assert await cursor.fetchone() == (2000, 2000)
