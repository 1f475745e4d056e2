"""Two frames compared field by field."""

from __future__ import annotations

from itertools import pairwise

import pytest

from protocols.lens.difference import Difference, differences
from tests.protocols.test_lens import E1
from tests.protocols.test_lens_tree import F161, GOOD, meter, root
from tests.protocols.vectors import Vector


def between(left: bytes, right: bytes) -> dict[str, Difference]:
    """Differences by the name of the field."""
    return {" / ".join(one.path): one for one in differences(root(left), root(right))}


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_a_frame_does_not_differ_from_itself(vector: Vector) -> None:
    assert differences(root(vector.raw), root(vector.raw)) == ()


@pytest.mark.parametrize(("left", "right"), list(pairwise(GOOD)), ids=str)
def test_two_frames_differ_if_and_only_if_their_bytes_do(left: Vector, right: Vector) -> None:
    found = differences(root(left.raw), root(right.raw))
    assert bool(found) == (root(left.raw).raw != root(right.raw).raw)


def test_one_value_that_differs_is_told_alone_with_the_checksum() -> None:
    other = meter(0x91, "00000100" + "57341200")
    (value, check) = differences(root(E1), root(other))
    assert value.left is not None
    assert value.right is not None
    assert (value.left.value, value.right.value) == ("1234.56", "1234.57")
    assert check.path == ("checksum CS",)


def test_a_field_that_one_frame_lacks_is_told_whole() -> None:
    longer = bytearray(F161[:-2])
    # EC and ACD: C is A8H instead of 88H, two more bytes.
    longer[6] = 0xA8
    longer += b"\x07\x02"
    longer[1:3] = longer[3:5] = (48 << 2 | 2).to_bytes(2, "little")
    raw = bytes(longer) + bytes([sum(longer[6:]) & 0xFF, 0x16])
    found = between(F161, raw)
    assert set(found) == {
        "length L / user data bytes",
        "length again",
        "control C / ACD",
        "event counter EC",
        "checksum CS",
    }
    assert found["event counter EC"].left is None
    assert found["event counter EC"].node.raw == b"\x07\x02"


def test_frames_of_two_families_have_nothing_to_be_compared() -> None:
    found = differences(root(E1), root(F161))
    assert any(one.left is None for one in found)
    assert any(one.right is None for one in found)
