"""The states of a relay command: what may follow what, on what proof. Pure; the one table of it.

Storage changes a row only by a statement that names the state it leaves, and control calls `check` before
each such statement: a step that is not in the table is a mistake of ours and stops there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from gateway.command import (
    ENDS,
    GATED_AS_TRIP,
    RESTORING,
    Action,
    Command,
    Proof,
    RelayStatus,
    State,
)
from gateway.errors import LingdianError

NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.REQUESTED: frozenset({State.HELD, State.QUEUED, State.REFUSED, State.CANCELLED, State.EXPIRED}),
    State.HELD: frozenset({State.QUEUED, State.REFUSED, State.CANCELLED, State.EXPIRED, State.SUPERSEDED}),
    State.QUEUED: frozenset({State.SENDING, State.REFUSED, State.CANCELLED, State.EXPIRED, State.SUPERSEDED}),
    State.SENDING: frozenset(
        {
            State.ACKNOWLEDGED,
            State.REFUSED,
            State.UNCERTAIN,
            State.QUEUED,
            State.EXPIRED,
            State.SUPERSEDED,
        }
    ),
    State.UNCERTAIN: frozenset({State.VERIFIED, State.FAILED, State.SUPERSEDED, State.QUEUED}),
    State.ACKNOWLEDGED: frozenset({State.VERIFIED, State.UNCERTAIN, State.FAILED}),
    State.FIELD: frozenset({State.QUEUED, State.VERIFIED, State.CANCELLED, State.SUPERSEDED}),
    **{end: frozenset() for end in ENDS},
}
"""For every action but the differences of closes, see `following`."""


_PROOFS: Final[Mapping[tuple[State, State], frozenset[Proof]]] = {
    (State.SENDING, State.QUEUED): frozenset({Proof.NO_BYTE_LEFT}),
    (State.SENDING, State.EXPIRED): frozenset({Proof.NO_BYTE_LEFT}),
    (State.SENDING, State.SUPERSEDED): frozenset({Proof.NO_BYTE_LEFT}),
    (State.UNCERTAIN, State.QUEUED): frozenset({Proof.NOT_EXECUTED}),
    (State.UNCERTAIN, State.FAILED): frozenset({Proof.NOT_EXECUTED}),
    (State.UNCERTAIN, State.VERIFIED): frozenset({Proof.RELAY_READ}),
    (State.ACKNOWLEDGED, State.VERIFIED): frozenset({Proof.RELAY_READ}),
    (State.ACKNOWLEDGED, State.QUEUED): frozenset({Proof.RELAY_READ}),
    (State.ACKNOWLEDGED, State.FAILED): frozenset({Proof.RELAY_READ}),
    (State.FIELD, State.VERIFIED): frozenset({Proof.RELAY_READ, Proof.FIELD_REPORT}),
}
"""Steps that want one of these proofs; the others want none."""


class WrongStep(LingdianError):
    """A step that is not in the table, or lacks its proof: a mistake of ours, and nothing was changed."""


def following(action: Action, state: State) -> frozenset[State]:
    """The states that may follow `state`.

    A close or permit-close never ends refused or failed: where another command would, it goes to FIELD; and
    an acknowledged one that reads back open is queued again.
    """
    after = NEXT[state]
    if action not in RESTORING:
        return after - {State.FIELD}
    if after & {State.REFUSED, State.FAILED}:
        after = after - {State.REFUSED, State.FAILED} | {State.FIELD}
    if state is State.ACKNOWLEDGED:
        after |= {State.QUEUED}
    return after


def check(action: Action, state: State, then: State, proof: Proof | None = None) -> None:
    """WrongStep unless a command of `action` may go from `state` to `then` on `proof`."""
    if then not in following(action, state):
        raise WrongStep(f"a {action} command that is {state} cannot become {then}")
    wanted = _PROOFS.get((state, then))
    if wanted is not None and proof not in wanted:
        raise WrongStep(
            f"a {action} command that is {state} becomes {then} only on proof"
            f" ({' or '.join(sorted(wanted))}), not on {proof or 'none'}"
        )


class Shown(StrEnum):
    """What a relay read says about a command."""

    DONE = "done"
    WAITING = "accepted, and the meter still waits for its delay or the load"
    NOT_DONE = "not done"


def shown(action: Action, status: RelayStatus) -> Shown:
    """What status word 3, read after the write, says about `action`.

    DONE for permit-close means permitted: the household may still be dark. Bit 6 without bit 4 is a trip that
    waits, whoever asked. The alarm has its own bit.
    """
    if action is Action.TRIP:
        if status.open:
            return Shown.DONE
        return Shown.WAITING if status.trip_ordered else Shown.NOT_DONE
    if action is Action.CLOSE:
        return Shown.NOT_DONE if status.open or status.trip_ordered else Shown.DONE
    if action is Action.PERMIT_CLOSE:
        return Shown.NOT_DONE if status.trip_ordered else Shown.DONE
    wanted = {
        Action.KEEP_POWER: status.keep_power,
        Action.RELEASE_KEEP_POWER: not status.keep_power,
        Action.ALARM: status.alarm,
        Action.CLEAR_ALARM: not status.alarm,
    }
    return Shown.DONE if wanted[action] else Shown.NOT_DONE


def is_proof(command: Command, status: RelayStatus) -> bool:
    """Was this relay read taken after the last write of `command`? Only then does it prove anything."""
    return command.sent_at is None or status.at > command.sent_at


def energised(status: RelayStatus) -> bool:
    """Does the household have power, by this read?"""
    return not status.open


def not_executed(action: Action, command: Command, status: RelayStatus, now: datetime) -> bool:
    """Does this read prove that the frame last sent was not executed and cannot do harm any more?

    For what takes power away only a read later than the frame's validity does (the meter's clock offset is
    counted in): before that a late copy may still be obeyed. A close may be sent again at will.
    """
    if not is_proof(command, status) or shown(action, status) is not Shown.NOT_DONE:
        return False
    if action not in GATED_AS_TRIP:
        return True
    valid_until = command.valid_until
    return valid_until is not None and status.at > valid_until and now > valid_until
