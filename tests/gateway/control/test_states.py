"""The state table of relay commands against the table that operators are given, and the words of proof."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from gateway.command import ENDS, RESTORING, Action, Command, Proof, RelayStatus, State
from gateway.control import states
from gateway.control.states import Shown, WrongStep

AT = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)

# Written out by hand from the design, apart from the code: state, then what it goes to.
TRIP_TABLE = """
requested: held queued refused cancelled expired
held: queued refused cancelled expired superseded
queued: sending refused cancelled expired superseded
sending: acknowledged refused uncertain queued expired superseded
uncertain: verified failed superseded queued
acknowledged: verified uncertain failed
"""
CLOSE_TABLE = """
requested: held queued cancelled expired field
held: queued cancelled expired superseded field
queued: sending cancelled expired superseded field
sending: acknowledged uncertain queued expired superseded field
uncertain: verified superseded queued field
acknowledged: verified uncertain queued field
field: queued verified cancelled superseded
"""


def table(text: str) -> dict[State, set[State]]:
    return {
        State(line.partition(":")[0]): {State(word) for word in line.partition(":")[2].split()}
        for line in text.split("\n")
        if line
    }


@pytest.mark.parametrize("action", list(Action))
def test_the_table_is_the_one_of_the_design(action: Action) -> None:
    wanted = table(CLOSE_TABLE if action in RESTORING else TRIP_TABLE)
    for state, then in product(State, State):
        may = then in wanted.get(state, set())
        if action not in RESTORING and state is State.FIELD:
            continue  # never reached
        assert (then in states.following(action, state)) == may, (action, state, then)


def test_ends_are_absorbing() -> None:
    for action, end in product(Action, ENDS):
        assert not states.following(action, end)


def test_a_close_never_ends_refused_or_failed() -> None:
    for action, state in product(RESTORING, State):
        assert not states.following(action, state) & {State.REFUSED, State.FAILED}


@pytest.mark.parametrize(
    ("state", "then", "proof"),
    [
        (State.SENDING, State.QUEUED, Proof.NO_BYTE_LEFT),
        (State.SENDING, State.EXPIRED, Proof.NO_BYTE_LEFT),
        (State.SENDING, State.SUPERSEDED, Proof.NO_BYTE_LEFT),
        (State.UNCERTAIN, State.QUEUED, Proof.NOT_EXECUTED),
        (State.UNCERTAIN, State.VERIFIED, Proof.RELAY_READ),
        (State.ACKNOWLEDGED, State.VERIFIED, Proof.RELAY_READ),
    ],
)
def test_steps_that_want_a_proof(state: State, then: State, proof: Proof) -> None:
    states.check(Action.TRIP, state, then, proof)
    for other in (None, *(set(Proof) - {proof})):
        with pytest.raises(WrongStep, match="only on proof"):
            states.check(Action.TRIP, state, then, other)


def test_a_step_that_is_not_in_the_table() -> None:
    with pytest.raises(WrongStep, match="a trip command that is queued cannot become verified"):
        states.check(Action.TRIP, State.QUEUED, State.VERIFIED, Proof.RELAY_READ)


# bit 4 relay open, bit 6 trip ordered, bit 7 alarm, bit 12 keep-power
@pytest.mark.parametrize(
    ("action", "word", "said"),
    [
        (Action.TRIP, 0x0000, Shown.NOT_DONE),
        (Action.TRIP, 0x0040, Shown.WAITING),
        (Action.TRIP, 0x0050, Shown.DONE),
        (Action.TRIP, 0x0010, Shown.DONE),
        (Action.CLOSE, 0x0000, Shown.DONE),
        (Action.CLOSE, 0x0040, Shown.NOT_DONE),
        (Action.CLOSE, 0x0010, Shown.NOT_DONE),
        (Action.CLOSE, 0x0050, Shown.NOT_DONE),
        (Action.PERMIT_CLOSE, 0x0010, Shown.DONE),
        (Action.PERMIT_CLOSE, 0x0050, Shown.NOT_DONE),
        (Action.KEEP_POWER, 0x1000, Shown.DONE),
        (Action.KEEP_POWER, 0x0000, Shown.NOT_DONE),
        (Action.RELEASE_KEEP_POWER, 0x0000, Shown.DONE),
        (Action.RELEASE_KEEP_POWER, 0x1000, Shown.NOT_DONE),
        (Action.ALARM, 0x0080, Shown.DONE),
        (Action.CLEAR_ALARM, 0x0080, Shown.NOT_DONE),
    ],
)
def test_what_status_word_3_shows(action: Action, word: int, said: Shown) -> None:
    assert states.shown(action, RelayStatus(word, AT)) is said


def command(**told: object) -> Command:
    given: dict[str, object] = {
        "id": UUID(int=1),
        "meter_id": 1,
        "action": Action.TRIP,
        "state": State.UNCERTAIN,
        "version": 3,
        "intent": 1,
        "requester": "billing",
        "cause": "arrears",
        "created_at": AT,
        "sent_at": AT,
        "valid_until": AT + timedelta(minutes=10),
    } | told
    return Command(**given)  # type: ignore[arg-type]  # any field may be given


def test_only_a_read_after_the_last_write_proves() -> None:
    assert not states.is_proof(command(), RelayStatus(0, AT))
    assert states.is_proof(command(), RelayStatus(0, AT + timedelta(seconds=1)))


def test_not_executed_only_once_the_validity_is_over() -> None:
    early = RelayStatus(0, AT + timedelta(minutes=9))
    late = RelayStatus(0, AT + timedelta(minutes=11))
    now = AT + timedelta(minutes=12)
    assert not states.not_executed(Action.TRIP, command(), early, now)
    assert states.not_executed(Action.TRIP, command(), late, now)
    assert not states.not_executed(Action.TRIP, command(), RelayStatus(0x50, late.at), now)
    assert not states.not_executed(Action.TRIP, command(), RelayStatus(0x40, late.at), now)


def test_an_open_relay_is_reason_enough_to_close_again() -> None:
    again = command(action=Action.CLOSE)
    soon = AT + timedelta(seconds=5)
    assert states.not_executed(Action.CLOSE, again, RelayStatus(0x50, soon), soon)
    assert not states.not_executed(Action.CLOSE, again, RelayStatus(0x50, AT), soon)
    assert not states.not_executed(Action.CLOSE, again, RelayStatus(0, soon), soon)
