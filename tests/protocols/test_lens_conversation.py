"""Which answer belongs to which request."""

from __future__ import annotations

import pytest

from protocols.lens.conversation import MOST_WAITING, Conversation, Turn
from protocols.lens.places import find
from tests.protocols.test_lens import E1
from tests.protocols.test_lens_tree import ASK_F161, F161, meter
from tests.protocols.vectors import valid

ASK_E1 = meter(0x11, "00000100")
LOGIN = bytes.fromhex("683200320068C91403326300027300000100EB16")
# Worked example 8: the answer to LOGIN.
LOGIN_ANSWER = bytes.fromhex("684A004A00680B14033263000063000004000200000100002116")


def said(*frames: bytes) -> tuple[Conversation, list[Turn]]:
    conversation = Conversation()
    turns = []
    for raw in frames:
        (place,) = find(raw).frames
        turns.append(conversation.add(raw, place))
    return conversation, turns


def changed(raw: bytes, **bytes_at: int) -> bytes:
    """A 376.1 frame with some bytes set ("at13": SEQ) and its checksum repaired."""
    frame = bytearray(raw)
    for name, value in bytes_at.items():
        frame[int(name[2:])] = value
    frame[-2] = sum(frame[6:-2]) & 0xFF
    return bytes(frame)


def answers(*frames: bytes) -> list[int | None]:
    return [turn.answers for turn in said(*frames)[1]]


def test_a_meters_answer_stands_beside_its_request() -> None:
    conversation, (asked, answer) = said(ASK_E1, E1)
    assert (asked.number, asked.answers, answer.answers) == (1, None, 1)
    assert answer.asked == asked.digest
    assert "00010000" in asked.digest
    assert "正向有功" in asked.digest_zh
    assert answer.digest.endswith("= 1234.56 kWh")
    assert (conversation.exchanges, conversation.unanswered) == (1, ())


@pytest.mark.parametrize(
    "other",
    [
        meter(0x11, "00000200"),  # another item
        meter(0x14, "00000100" + "00" * 12),  # another function
        ASK_E1.replace(bytes.fromhex("120005112320"), bytes.fromhex("130005112320"))[:-2] + b"\x1e\x16",
        E1,  # no request at all
    ],
    ids=["item", "function", "address", "answer"],
)
def test_an_answer_to_something_else_answers_nothing(other: bytes) -> None:
    assert answers(other, E1)[-1] is None


def test_the_newest_request_is_the_one_answered() -> None:
    assert answers(ASK_E1, ASK_E1, E1) == [None, None, 2]


def test_a_refusal_has_no_item_and_still_finds_its_request() -> None:
    _, turns = said(ASK_E1, meter(0xD1, "02"))
    assert turns[1].answers == 1
    assert "refused: no such data" in turns[1].digest
    assert "无请求数据" in turns[1].digest_zh
    assert "00010000" in turns[1].asked


def test_a_wildcard_is_answered_by_whatever_meter_there_is() -> None:
    wildcard = bytes.fromhex("68AAAAAAAAAAAA681300DF16")
    assert answers(wildcard, meter(0x93, "120005112320")) == [None, 1]


def test_a_broadcast_waits_for_nobody() -> None:
    raw = bytes.fromhex("68999999999999681604")
    raw += bytes((byte + 0x33) & 0xFF for byte in b"\x99" * 4)
    conversation, _ = said(raw + bytes([sum(raw) & 0xFF, 0x16]))
    assert conversation.unanswered == ()


def test_parts_of_an_item_are_joined_when_the_last_has_come() -> None:
    # 0001FF00: total and three tariffs, cut in the middle of a value.
    block = "56341200" + "00000100" + "00001000" + "99999999"
    first = meter(0xB1, "00FF0100" + block[:14])
    second = meter(0xB2, "00FF0100" + block[14:22] + "01")
    last = meter(0x92, "00FF0100" + block[22:] + "02")
    _, turns = said(meter(0x11, "00FF0100"), first, meter(0x12, "00FF010001"), second,
                    meter(0x12, "00FF010002"), last)  # fmt: skip
    assert [turn.answers for turn in turns] == [None, 1, None, 3, None, 5]
    assert [turn.joined for turn in turns[:-1]] == [()] * 5
    assert [node.value for node in turns[-1].joined] == ["1234.56", "100.00", "1000.00", "999999.99"]


@pytest.mark.parametrize("sequence", ["03", "01"], ids=["missing", "repeated"])
def test_parts_out_of_order_are_not_joined(sequence: str) -> None:
    first = meter(0xB1, "00FF0100" + "56341200")
    second = meter(0xB2, "00FF0100" + "00000100" + "01")
    last = meter(0x92, "00FF0100" + "00100000" + sequence)
    assert said(first, second, last)[1][-1].joined == ()


def test_a_terminals_answer_is_found_by_its_sequence_number() -> None:
    assert answers(ASK_F161, F161) == [None, 1]
    assert answers(changed(ASK_F161, at13=0x65), F161) == [None, None]
    assert answers(changed(ASK_F161, at7=0x15), F161) == [None, None]


def test_a_terminal_asks_too() -> None:
    conversation, turns = said(LOGIN, LOGIN_ANSWER)
    assert turns[1].answers == 1
    assert "03146332: AFN02 link test p0 F1 Login" in turns[1].asked
    assert "登录" in turns[1].asked_zh
    assert conversation.unanswered == ()


def test_any_request_may_be_confirmed_or_denied() -> None:
    denied = changed(LOGIN_ANSWER, at6=0x88, at13=0x62, at16=0x02)
    assert answers(ASK_F161, denied) == [None, 1]


def test_further_frames_of_an_answer_count_on() -> None:
    first, middle, last = (changed(F161, at13=seq) for seq in (0x42, 0x03, 0x24))
    assert answers(ASK_F161, first, middle, last) == [None, 1, 1, 1]
    stray = changed(F161, at13=0x25)
    assert answers(ASK_F161, first, stray) == [None, 1, None]


def test_what_is_never_answered_is_told_and_bounded() -> None:
    conversation = said(*[ASK_E1] * (MOST_WAITING + 3))[0]
    assert len(conversation.unanswered) == MOST_WAITING
    assert conversation.unanswered[0] == 4
    assert conversation.count == MOST_WAITING + 3


@pytest.mark.parametrize("vector", valid("dlt645-2007", "dlt645-1997", "qgdw376.1"), ids=str)
def test_every_field_frame_has_a_line_in_both_languages(vector: object) -> None:
    raw = getattr(vector, "raw", b"")
    for place in find(raw).frames:
        turn = Conversation().add(raw, place)
        assert turn.digest
        assert turn.digest_zh
