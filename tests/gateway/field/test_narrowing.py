"""The search on lines that are made up: whoever hangs there is found, whatever their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.field.narrowing import DIGITS, WILD, Narrowing, Range, Sound
from protocols.dlt645.frame import matches

ALL = WILD * DIGITS


class MadeUp:
    """A line without time. whole_bytes: those whose wildcards are bytes; drowns: the strongest is heard, not
    a sum; deaf: questions (by their number) to which nothing comes; loud: those that noise disturbs; late:
    meters that answer each at a time of its own, apart from the rest."""

    def __init__(
        self,
        meters: Collection[str],
        whole_bytes: Collection[str] = (),
        *,
        drowns: bool = False,
        deaf: Collection[int] = (),
        loud: Collection[int] = (),
        late: Collection[str] = (),
    ) -> None:
        self.meters = list(meters)
        self.whole_bytes = whole_bytes
        self.drowns = drowns
        self.deaf = deaf
        self.loud = loud
        self.late = late
        self.asked: list[str] = []
        self.found: set[str] = set()

    def _means(self, pattern: str, meter: str) -> bool:
        pairs = [pattern[at : at + 2] for at in range(0, DIGITS, 2)]
        halves = any(WILD in pair and pair != WILD * 2 for pair in pairs)
        return matches(pattern, meter) and not (halves and meter in self.whole_bytes)

    def hear(self, pattern: str) -> Sound:
        self.asked.append(pattern)
        number = len(self.asked)
        answers = [meter for meter in self.meters if self._means(pattern, meter)]
        if number in self.deaf:
            return Sound()
        apart = tuple(meter for meter in answers if meter in self.late)
        answers = [meter for meter in answers if meter not in self.late]
        if number in self.loud or (len(answers) > 1 and not self.drowns):
            return Sound(apart, damaged=True)
        if apart:
            return Sound((*apart, *answers))
        return Sound(tuple(answers[:1]))

    async def ask(self, pattern: str, patient: bool) -> Sound:
        return self.hear(pattern)

    async def prove(self, meter: str) -> bool:
        if meter in self.meters:
            self.found.add(meter)
        return meter in self.meters

    def missing(self) -> set[str]:
        self.search()
        return set(self.meters) - self.found

    def search(
        self, *, within: Range | None = None, by_byte: bool = False, thorough: bool = False
    ) -> Narrowing:
        narrowing = Narrowing(self.ask, self.prove, within or Range(), by_byte, thorough)
        asyncio.run(self._whole(narrowing))
        return narrowing

    async def _whole(self, narrowing: Narrowing) -> None:
        await narrowing.run(self.hear(ALL))
        await narrowing.finish()


ends = st.sampled_from(["12", "0012", "050012", "11050012", "99", ""])
address = st.builds(
    lambda number, end: f"{number:012d}"[: DIGITS - len(end)] + end, st.integers(0, 10**12 - 1), ends
)
lines = st.lists(address, min_size=0, max_size=8, unique=True)


@settings(max_examples=60, deadline=None)
@given(lines, st.booleans(), st.booleans())
def test_all_that_damage_each_other_are_told_apart(
    meters: list[str], whole_bytes: bool, thorough: bool
) -> None:
    line = MadeUp(meters, meters if whole_bytes else ())
    narrowing = line.search(thorough=thorough)
    assert line.found == set(meters)
    assert not narrowing.unclear


@settings(max_examples=20, deadline=None)
@given(lines, st.booleans())
def test_those_that_another_drowns_are_found_when_one_looks_beneath(
    meters: list[str], whole_bytes: bool
) -> None:
    line = MadeUp(meters, meters if whole_bytes else (), drowns=True)
    line.search(thorough=True)
    assert line.found == set(meters)


def test_quick_is_what_does_not_look_beneath() -> None:
    line = MadeUp(["202311050012", "202311050013"], drowns=True)
    line.search()
    assert line.found == {"202311050012"}
    assert len(line.asked) == 1


@settings(max_examples=20, deadline=None)
@given(lines, st.data())
def test_makes_that_differ_are_found_by_whole_bytes(meters: list[str], data: st.DataObject) -> None:
    whole_bytes = data.draw(st.sets(st.sampled_from(meters))) if meters else set()
    line = MadeUp(meters, whole_bytes)
    narrowing = line.search(by_byte=True)
    assert line.found == set(meters)
    assert not narrowing.unclear


THREE = ("202311050012", "202311050013", "202311060012")


@pytest.mark.parametrize("lost", range(2, 40))
def test_an_answer_that_is_lost_is_missed(lost: int) -> None:
    """What damages needs two; and where somebody was heard, the silent are asked again."""
    line = MadeUp(THREE, deaf=[lost])
    line.search(thorough=True)
    assert line.found == set(THREE)


def test_an_answer_that_is_lost_may_stay_so_where_one_does_not_look_twice() -> None:
    missed = {lost for lost in range(2, 30) if MadeUp(THREE, deaf=[lost]).missing()}
    assert missed == {6}, "the third meter's own question, while the other two explain the damage"


@pytest.mark.parametrize("noisy", range(1, 40))
def test_noise_finds_nobody_and_hides_nobody(noisy: int) -> None:
    line = MadeUp(["202311050012", "202311050013"], loud=[noisy])
    narrowing = line.search()
    assert line.found == {"202311050012", "202311050013"}
    assert not narrowing.unclear


def test_those_that_answer_apart_from_the_rest_do_not_explain_its_damage() -> None:
    apart, together = ["202311050012", "202311050024"], ["202311050036", "202311050048"]
    line = MadeUp([*apart, *together], together, late=apart)
    line.search()
    assert line.found == {*apart, *together}


def test_a_silent_line_costs_one_question() -> None:
    line = MadeUp([])
    line.search(thorough=True)
    assert line.asked == [ALL]


def test_two_of_one_address_are_told_as_such() -> None:
    line = MadeUp(["202311050012", "202311050012", "202311050013"])
    narrowing = line.search(thorough=True)
    assert line.found == {"202311050013"}
    assert narrowing.unclear == ["202311050012"]
    assert len(line.asked) < 600


def test_a_meter_that_is_not_there_is_damage() -> None:
    """Two answers that lie on each other may make up a third."""
    meters = ["202311050012", "202311060013"]
    line = MadeUp(meters)
    narrowing = Narrowing(line.ask, line.prove, thorough=False)
    asyncio.run(narrowing.run(Sound(("202311040012",))))
    assert line.found == set(meters)


def test_only_ends_that_lie_within_are_asked() -> None:
    meters = [f"2023110500{number:02d}" for number in range(10, 30)]
    line = MadeUp(meters)
    line.search(within=Range(202311050010, 202311050014))
    assert {"202311050010", "202311050014"} <= line.found
    assert not {f"2023110500{number}" for number in range(25, 30)} & line.found
    assert all(pattern[-1] in "A01234" for pattern in line.asked)


@pytest.mark.parametrize(
    ("within", "end", "has"),
    [
        (Range(), "12", True),
        (Range(100, 111), "12", False),
        (Range(100, 112), "12", True),
        (Range(113, 211), "12", False),
        (Range(113, 212), "12", True),
        (Range(5, 4), "", False),
    ],
)
def test_a_range_knows_which_ends_lie_in_it(within: Range, end: str, has: bool) -> None:
    assert within.has_any(end) is has
    assert within.holds("202311050012") is (within == Range())
