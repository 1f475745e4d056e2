"""A permit is for one action on one target, and says why."""

from __future__ import annotations

import pytest

from protocols.errors import LocalProtocolError
from protocols.permit import Permit, demand

PERMIT = Permit("645 1c trip", "202311050012", "unpaid since May")


def test_the_permit_for_an_action_and_target_is_enough() -> None:
    demand(PERMIT, "645 1c trip", "202311050012")


@pytest.mark.parametrize(
    ("permit", "action", "target"),
    [
        (None, "645 1c trip", "202311050012"),
        (PERMIT, "645 1c close", "202311050012"),
        (PERMIT, "645 1c", "202311050012"),
        (PERMIT, "645 1c trip", "202311050013"),
        (PERMIT, "645 1c trip", ""),
    ],
)
def test_anything_else_is_refused_by_name(permit: Permit | None, action: str, target: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{action} on {target}"):
        demand(permit, action, target)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_a_permit_without_a_reason_is_none(reason: str) -> None:
    with pytest.raises(LocalProtocolError, match="a permit for 645 14 on 202311050012 needs a reason"):
        Permit("645 14", "202311050012", reason)
