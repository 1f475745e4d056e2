"""The only builder of 1CH (relay control) and 03H (security). Who imports it, pyproject.toml limits.

Each builder wants a `Permit` for exactly the verb and the meter, refuses every address that is not one
meter's own, and gives a `Frame` for `Master.send_control`. Ciphers and MACs come from a crypto machine.
"""

from __future__ import annotations

from datetime import datetime

from protocols import wire
from protocols.dlt645.control_messages import (
    RELAY_CONTROL,
    RELAY_LAYOUT,
    REQUEST_FIELDS,
    RESTORE_STEP_MINUTES,
    SEALED_LAYOUT,
    SECURITY,
    RelayCommand,
    SealedCommand,
    SecurityRequest,
    Verb,
    join,
)
from protocols.dlt645.fields import Authority, demand_single, di_bytes, moment_bytes
from protocols.dlt645.frame import Frame
from protocols.errors import LocalProtocolError
from protocols.permit import Permit, demand

# Plain levels that meters take for 1CH: 02 and 04, and 03 on some (single source).
PLAIN_CONTROL_LEVELS = frozenset(("02", "03", "04"))
MAC_LENGTH = 4
# How cipher || MAC travels at level 98 (from code, not from the standard text: a profile says which).
REVERSED = "reversed"
AS_GIVEN = "as_given"
_HIGHEST_N2 = 255


def action(verb: Verb) -> str:
    """What a permit for this verb names: "645 1c trip"."""
    return f"645 {RELAY_CONTROL:02x} {verb.word}"


SECURITY_ACTION = f"645 {SECURITY:02x}"


def build_control(command: RelayCommand, permit: Permit | None) -> Frame:
    """1CH in plain. LocalProtocolError without a fitting permit, a deadline, a single meter's address, a
    plain level, or with a restore time that the verb has not (5..1275 minutes in steps of 5 for 1D, 1E)."""
    _check(command.address, action(command.verb), permit)
    level = command.authority.level
    if level not in PLAIN_CONTROL_LEVELS:
        raise LocalProtocolError(f"level {level!r} does not switch in plain (02..04)")
    if command.deadline is None:
        raise LocalProtocolError("a relay command without a deadline could be executed at any time")
    told = {
        "authority": command.authority,
        "verb": int(command.verb),
        "restore": _n2(command.verb, command.restore_minutes),
        "deadline": command.deadline,
    }
    return Frame(command.address, RELAY_CONTROL, wire.build(RELAY_LAYOUT, told, "1CH"))


def build_sealed_control(command: SealedCommand, verb: Verb, permit: Permit | None) -> Frame:
    """1CH at level 98 or 99. verb: what the crypto machine sealed; the permit must be for it.

    LocalProtocolError as `build_control`, or where the block is too short to hold a MAC.
    """
    _check(command.address, action(verb), permit)
    if not command.authority.has_mac:
        raise LocalProtocolError(f"level {command.authority.level!r} carries no MAC (98, 99)")
    if len(command.block) <= MAC_LENGTH:
        raise LocalProtocolError(f"{len(command.block)} bytes are no cipher with its MAC")
    told = {"authority": command.authority, "block": command.block}
    return Frame(command.address, RELAY_CONTROL, wire.build(SEALED_LAYOUT, told, "1CH"))


def build_security(request: SecurityRequest, permit: Permit | None) -> Frame:
    """03H. LocalProtocolError without a permit for SECURITY_ACTION, for a DI that REQUEST_FIELDS does not
    hold, or where the fields are not the DI's."""
    _check(request.address, SECURITY_ACTION, permit)
    if request.di not in REQUEST_FIELDS:
        raise LocalProtocolError(f"DI {request.di!r} is no security command")
    operator = di_bytes(request.operator) if len(request.operator) == 8 else b""
    if not operator:
        raise LocalProtocolError(f"operator {request.operator!r} is not eight hex digits")
    data = di_bytes(request.di) + operator + join(REQUEST_FIELDS, request.di, request.fields)
    return Frame(request.address, SECURITY, data)


def sealed_authority(operator: str, *, level: str = "98", wants_word: bool = True) -> Authority:
    """The authority of a sealed command: no password; P2 = 01H asks for a status word in the answer."""
    return Authority(level, "010000" if wants_word else "000000", operator)


def sealed_block(cipher: bytes, mac: bytes, order: str = REVERSED) -> bytes:
    """cipher and MAC (high byte first, as a crypto machine gives them) as they travel.

    order: REVERSED sends cipher || MAC from its last byte, AS_GIVEN from its first.
    """
    if not cipher or len(mac) != MAC_LENGTH or order not in (REVERSED, AS_GIVEN):
        raise LocalProtocolError(f"{len(cipher)} bytes of cipher, {len(mac)} of MAC, {order!r}: no block")
    return (cipher + mac)[::-1] if order == REVERSED else cipher + mac


def control_plaintext(verb: Verb, deadline: datetime, restore_minutes: int = 0) -> bytes:
    """R1..R8, what the crypto machine seals: command, restore time, YY MM DD hh mm ss."""
    return bytes([verb, _n2(verb, restore_minutes)]) + moment_bytes(deadline)[::-1]


def diversifier(meter_number: str) -> bytes:
    """0000 and the twelve digits of the meter number (04000402), high byte first."""
    demand_single(meter_number, "a diversifier")
    return bytes.fromhex(f"0000{meter_number}")


def authentication(
    address: str, operator: str, cipher: bytes, random: bytes, meter_number: str
) -> SecurityRequest:
    """070000FF: cipher 1 and random 1 of the crypto machine, eight bytes each, high byte first."""
    told = (("cipher", cipher), ("random", random), ("diversifier", diversifier(meter_number)))
    return SecurityRequest(address, "070000ff", operator, told)


def session_validity(address: str, operator: str, minutes: int, mac: bytes) -> SecurityRequest:
    """070001FF: how long an authentication holds, 1..9999 minutes."""
    if not 1 <= minutes <= 9999:
        raise LocalProtocolError(f"{minutes} minutes are no validity (1..9999)")
    told = (("minutes", bytes.fromhex(f"{minutes:04d}")), ("mac", mac))
    return SecurityRequest(address, "070001ff", operator, told)


def end_authentication(address: str, operator: str) -> SecurityRequest:
    """070002FF: end the session."""
    return SecurityRequest(address, "070002ff", operator)


def _check(address: str, wanted: str, permit: Permit | None) -> None:
    demand_single(address, wanted)
    demand(permit, wanted, address)


def _n2(verb: Verb, restore_minutes: int) -> int:
    steps, odd = divmod(restore_minutes, RESTORE_STEP_MINUTES)
    if odd or not (1 <= steps <= _HIGHEST_N2 if verb.restores else steps == 0):
        raise LocalProtocolError(f"{verb.word} cannot restore after {restore_minutes} minutes")
    return steps
