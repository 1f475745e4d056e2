"""Evidence that proves itself: whoever changes it is found, with or without knowing how it is made."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.command import chained
from gateway.control import timeline
from gateway.control.masked_frame import is_that_frame
from gateway.control.verification import verify
from gateway.errors import StorageError
from gateway.storage.chain import newest, sealed
from gateway.storage.database import Database
from gateway.storage.event_bodies import MASKED, ROW, comparable, determined, tellable
from gateway.storage.frame_secret import FrameSecret, find_or_make
from tests.gateway.api.house import EAST, WEST
from tests.gateway.control.switching import PASSWORD, Switching, parsed, resealed, switching

pytestmark = pytest.mark.database

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Switching]:
    async with switching(database, tmp_path) as made:
        yield made


@pytest.fixture
async def raw(stage: Switching) -> bytes:
    """Evidence of a trip that was carried out, in two seals, with others' events between."""
    command = await stage.done("one", label="出纳 Li", work_order="W-7")
    await stage.seal()
    await stage.done("two", action="restore", cause="paid", notice="")
    await stage.seal()
    return await stage.evidence(command)


def rechained(made: dict[str, Any]) -> None:
    """Make the chain of its events anew, as whoever knows how would."""
    before = b""
    for event in made["events"]:
        before = chained(before, event["body"])
        event["hash"] = before.hex()
    made["chain"]["hash"] = before.hex()
    made.update(timeline.parts([event["body"] for event in made["events"]]))


async def test_what_is_kept_holds(stage: Switching, raw: bytes) -> None:
    verdict = verify(raw)
    assert verdict.wrong == []
    assert (verdict.action, verdict.state, verdict.meter) == ("trip", "verified", "E1")
    assert verdict.sealed == verdict.events
    assert verdict.remarks == []
    made = parsed(raw)
    told = made["command"]
    assert (told["label"], told["work_order"], told["notice"]) == ("出纳 Li", "W-7", "N-1")
    assert [one["name"] for one in made["people"]] == ["billing"]
    assert [one["open"] for one in made["relay_reads"]] == [False, True]
    assert [one.state for one in verdict.entries if one.kind == "step"] == [
        "queued",
        "sending",
        "acknowledged",
        "verified",
    ]


async def test_frames_are_decoded_and_hide_their_password(raw: bytes) -> None:
    down, up = parsed(raw)["frames"]
    assert (down["direction"], up["direction"]) == ("down", "up")
    assert down["frame"].split()[11:14] == ["**"] * 3
    assert down["decoded"]["relay_action"] == "trip"
    assert down["decoded"]["address"] == "000000000001"
    assert down["decoded"]["password"] == "******"
    assert up["decoded"]["control"] == "9c"
    secret = " ".join(f"{byte + 0x33:02X}" for byte in bytes.fromhex(PASSWORD)[::-1])
    for spelling in (PASSWORD, secret, secret.lower(), secret.replace(" ", "")):
        assert spelling.encode() not in raw


def found_password(raw: bytes, passwords: Iterable[str]) -> str | None:
    """As one who holds the file tries: the password with which a masked frame has a hash that is in it."""
    for frame in parsed(raw)["frames"]:
        for password in passwords if MASKED in frame["frame"].split() else ():
            told = frame["frame"].split()
            told[11:14] = [f"{byte + 0x33:02x}" for byte in bytes.fromhex(password)[::-1]]
            told[-2] = "00"
            made = bytearray.fromhex("".join(told))
            made[-2] = sum(made[:-2]) & 0xFF
            if hashlib.sha256(made).hexdigest().encode() in raw:
                return password
    return None


async def test_no_password_can_be_tried_on_what_leaves_the_house(
    stage: Switching, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = ["246812", PASSWORD]
    assert found_password(raw, tried) is None
    told = await stage.house.rows("SELECT data::text FROM outbox")
    http = await stage.house.client("billing")
    shown = (await http.get("/api/v1/relay-commands")).text
    for (hashed,) in await stage.house.rows(
        "SELECT encode(frame_sha256, 'hex') FROM relay_command WHERE frame_sha256 IS NOT NULL"
    ):
        assert hashed.encode() not in raw
        assert hashed not in shown
        assert not any(hashed in text for (text,) in told)
    monkeypatch.setattr("gateway.storage.desk.tellable", lambda evidence, secret: evidence)
    stage.house.clock.passes(700)
    assert found_password(await stage.evidence(await stage.done("three")), tried) == PASSWORD


async def test_the_secret_of_the_house_is_one_and_is_never_told(stage: Switching, raw: bytes) -> None:
    ((secret,),) = await stage.house.rows("SELECT secret FROM frame_secret")
    assert len(secret) == 32
    assert bytes(secret).hex().encode() not in raw
    assert bytes(secret).hex() not in repr(FrameSecret(bytes(secret)))
    database = stage.house.database
    made = await asyncio.gather(*(find_or_make(database, stage.house.clock.now()) for _ in range(3)))
    assert made == [FrameSecret(bytes(secret))] * 3
    for statement in ("UPDATE frame_secret SET secret = sha256(secret)", "DELETE FROM frame_secret"):
        with pytest.raises(StorageError, match="the frame secret stays"):
            await stage.house.rows(statement)


async def test_who_holds_the_secret_can_compare_a_masked_frame(
    stage: Switching, raw: bytes, tmp_path: Path
) -> None:
    ((kept,),) = await stage.house.rows("SELECT secret FROM frame_secret")
    secret = FrameSecret(bytes(kept))
    without, other = verify(raw), verify(raw, secret=FrameSecret(b"x" * 32))
    assert [(one.wrong, one.compared, one.keyed) for one in (without, other)] == [([], 0, 1)] * 2
    (tmp_path / "one.json").write_bytes(raw)
    for text, exit_code, said in (
        ("", 2, "64 hex digits"),
        (secret.secret.hex() + "\n", 0, "1 frames held against their hash"),
        ("00" * 32, 0, "1 not, they hide a password"),
    ):
        (tmp_path / "secret").write_text(text)
        result = CliRunner().invoke(
            app, ["relay", "verify", str(tmp_path / "one.json"), "--frame-secret", str(tmp_path / "secret")]
        )
        assert (result.exit_code, said in result.output) == (exit_code, True), result.output
    frame = parsed(raw)["frames"][0]
    digits = [byte + 0x33 for byte in (0x13, 0x24, 0x68, 0x99)]
    assert is_that_frame(frame["frame"], frame["hmac"], secret, digits)
    shown = frame["frame"].split()
    changed = " ".join([*shown[:20], f"{int(shown[20], 16) ^ 1:02X}", *shown[21:]])
    assert not is_that_frame(changed, frame["hmac"], secret, digits)
    assert not is_that_frame(frame["frame"], frame["hmac"], secret, digits[1:])
    for nothing in ("", "68", "** ** ** **", frame["frame"].replace("**", "00"), frame["frame"] + " zz"):
        assert not is_that_frame(nothing, frame["hmac"], secret, digits)


def test_a_frame_that_hides_nothing_has_its_plain_hash() -> None:
    """What is sealed is told whole: anybody can compare it."""
    whole = "68 01 00 00 00 00 00 68 9C 00 6D 16"
    evidence = {"frame": whole, "sha256": hashlib.sha256(bytes.fromhex(whole)).hexdigest()}
    secret = FrameSecret(b"s" * 32)
    assert tellable(evidence, secret) == evidence
    for frame in ("68 ** 16", "", None):
        told = tellable(evidence | {"frame": frame}, secret)
        assert "sha256" not in told
        assert (told["hmac"], told["key"]) == (secret.keyed(bytes.fromhex(evidence["sha256"])), secret.name)


async def test_events_of_before_still_prove_themselves_and_say_that_they_are_confidential(
    stage: Switching, raw: bytes
) -> None:
    """Early events told no columns, and plain hashes."""
    made = parsed(raw)
    for body in bodies(made):
        body.pop("set", None)
        if "hmac" in (told := body.get("evidence", {})):
            told["sha256"] = told.pop("hmac")
            del told["key"]
    rechained(made)
    for event in made["events"]:
        event["seal"] = None
    made["seals"] = []
    made["command"] = comparable(made["command"], determined(bodies(made)))
    assert "attempts" not in made["command"]
    verdict = verify(resealed(made))
    assert (verdict.wrong, verdict.keyed) == ([], 1)
    assert any("keep this file secret" in remark for remark in verdict.remarks)
    made["command"]["attempts"] = 1
    assert [one.place for one in verify(resealed(made)).wrong] == ["command.attempts"]


async def test_every_column_of_the_row_is_held_against_the_events(
    stage: Switching, raw: bytes, tmp_path: Path
) -> None:
    """Change one in the file, as who knows the format would: it is named, and the exit is not zero."""
    told = set(ROW) - {"frame_hash"} | {"frame_hmac"}
    assert set(parsed(raw)["command"]) == told
    for name in sorted(told):
        made = parsed(raw)
        row = made["command"]
        was = row[name]
        if isinstance(was, bool):
            row[name] = not was
        elif isinstance(was, int):
            row[name] = was + 1
        else:
            row[name] = "2026-11-25T05:00:00+00:00" if was is None else was[:-1] + "x"
        forged = resealed(made)
        places = [one.place for one in verify(forged).wrong]
        assert f"command.{name}" in places, name
        assert name == "id" or len(places) == 1, (name, places)
        path = tmp_path / f"{name}.json"
        path.write_bytes(forged)
        result = CliRunner().invoke(app, ["relay", "verify", str(path)])
        assert (result.exit_code, f"command.{name}: it is " in result.stdout) == (1, True), name
        del row[name]
        assert verify(resealed(made)).wrong, name


EVENT_PARTS = {
    "kind": "waits",
    "state": "queued",
    "at": "2026-11-25T05:00:00+00:00",
    "from": "sending",
    "proof": "field_report",
    "why": "by_person",
    "evidence": {},
    "n": 9,
    "command": "00000000-0000-0000-0000-000000000000",
    "set": {"attempts": 9},
}


async def test_every_part_of_an_event_is_held_against_its_hash(raw: bytes) -> None:
    assert set(bodies(parsed(raw))[4]) == set(EVENT_PARTS) - {"set"}
    for name, value in EVENT_PARTS.items():
        made = parsed(raw)
        bodies(made)[4][name] = value
        made.update(timeline.parts(bodies(made)))
        assert "event 5" in {one.place for one in verify(resealed(made)).wrong}, name


async def test_columns_that_were_changed_in_the_database_show_in_the_evidence(stage: Switching) -> None:
    command = await stage.done("one")
    for name, change in {
        "attempts": "attempts = attempts + 1",
        "frame_hmac": "frame_sha256 = sha256(frame_sha256)",
        "sent_at": "sent_at = sent_at - interval '1 second'",
        "valid_until": "valid_until = NULL",
        "why": "why = NULL",
        "meter": "meter_id = (SELECT meter_id FROM meter WHERE number = 'W2')",
    }.items():
        before = await stage.house.rows("SELECT * FROM relay_command WHERE command_id = %s", command)
        await stage.house.rows(f"UPDATE relay_command SET {change} WHERE command_id = %s", command)
        assert [one.place for one in verify(await stage.evidence(command)).wrong] == [f"command.{name}"]
        (row,) = before
        columns = [
            one[0]
            for one in await stage.house.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'relay_command'"
                " AND table_schema = 'public' ORDER BY ordinal_position"
            )
        ]
        await stage.house.rows(
            "UPDATE relay_command SET "
            + ", ".join(f"{column} = %s" for column in columns)
            + " WHERE command_id = %s",
            *row,
            command,
        )
    assert verify(await stage.evidence(command)).wrong == []


async def test_a_changed_byte_anywhere_is_found(raw: bytes) -> None:
    dice = random.Random(7)
    for place in sorted({*range(60), *(dice.randrange(len(raw)) for _ in range(400)), len(raw) - 1}):
        changed = bytearray(raw)
        changed[place] ^= dice.randrange(1, 256)
        assert verify(bytes(changed)).wrong, place


async def test_other_damage_is_found(raw: bytes) -> None:
    dice = random.Random(8)
    for _ in range(100):
        start = dice.randrange(len(raw))
        cut = raw[:start] + raw[start + dice.randrange(1, 40) :]
        put = raw[:start] + bytes(dice.choices(b' "{}[],:0aZ\n\\', k=dice.randrange(1, 5))) + raw[start:]
        for changed in (cut, put):
            assert changed == raw or verify(changed).wrong, start
    for nothing in (
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 1e999}',
        raw + b" ",
        raw[:-1],
    ):
        assert verify(nothing).wrong


async def test_random_edits_by_who_knows_the_format_are_found(raw: bytes) -> None:
    """A value anywhere is changed and the file's digest made anew: the chain or the seals find it."""
    dice = random.Random(9)
    for _ in range(300):
        made = parsed(raw)
        path = _change(made, dice)
        if path[0] == "made":  # who fetched it when is not part of the proof
            continue
        verdict = verify(resealed(made))
        assert verdict.wrong, path


def _change(made: Any, dice: random.Random) -> list[object]:
    """Change one leaf; where it was."""
    path: list[object] = []
    part = made
    while True:
        names = [
            name
            for name in (part if isinstance(part, dict) else range(len(part)))
            if name not in ("sha256", "format") or path
        ]
        names = [name for name in names if part[name] not in ({}, [])]
        name = dice.choice(names)
        path.append(name)
        if not isinstance(part[name], dict | list):
            part[name] = _other(part[name], dice)
            return path
        part = part[name]


def _other(value: Any, dice: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return dice.choice([one for one in (True, False, "x", 3) if one is not value])
    if isinstance(value, int):
        return value + dice.choice((-1, 1, 1000))
    place = dice.randrange(len(value) + 1)
    return value[:place] + dice.choice("0Zé ") + value[place + dice.randrange(2) :] + "x"


def bodies(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [event["body"] for event in made["events"]]


def _drop_step(made: dict[str, Any]) -> None:
    del made["events"][2]
    for place, event in enumerate(made["events"], 1):
        event["body"]["n"] = place
    made["chain"]["events"] -= 1


def _old_read(made: dict[str, Any]) -> None:
    bodies(made)[-1]["evidence"]["at"] = "2026-11-25T03:00:00+00:00"


def _closed_relay(made: dict[str, Any]) -> None:
    bodies(made)[-1]["evidence"]["word3"] = 0


def _no_hash(made: dict[str, Any]) -> None:
    del bodies(made)[2]["evidence"]["hmac"]


def _no_proof(made: dict[str, Any]) -> None:
    del bodies(made)[-1]["proof"]


@pytest.mark.parametrize(
    ("edit", "place", "words"),
    [
        (_drop_step, "event 3", "cannot become acknowledged"),
        (_old_read, "event 5", "before the last frame was sent"),
        (_closed_relay, "event 5", "does not show it"),
        (_no_hash, "event 3", "without the hash"),
        (_no_proof, "event 5", "only on proof"),
    ],
)
async def test_a_chain_made_anew_must_still_make_sense(
    raw: bytes, edit: Edit, place: str, words: str
) -> None:
    made = parsed(raw)
    edit(made)
    rechained(made)
    verdict = verify(resealed(made))
    assert any(one.place == place and words in one.what and one.what_zh for one in verdict.wrong), (
        verdict.wrong
    )
    assert any(one.what.endswith("is not over it") for one in verdict.wrong), "the seals find it as well"


async def test_a_chain_and_seals_made_anew_are_found_by_a_seal_kept_elsewhere(
    stage: Switching, raw: bytes
) -> None:
    kept = await newest(stage.house.database)
    first = parsed(raw)["seals"][0]
    assert kept is not None
    assert verify(raw, seals={first["seal"]: first["digest"], kept.id: kept.digest.hex()}).wrong == []
    made = parsed(raw)
    bodies(made)[0]["evidence"]["cause"] = made["command"]["cause"] = "no reason"
    rechained(made)
    for seal in made["seals"]:
        hashes = {event["id"]: event["hash"] for event in made["events"]}
        seal["events"] = [[number, hashes.get(number, hashed)] for number, hashed in seal["events"]]
        listed = [(number, bytes.fromhex(hashed)) for number, hashed in seal["events"]]
        at = datetime.fromisoformat(seal["at"])
        seal["digest"] = sealed(bytes.fromhex(seal["before"]), seal["seal"], at, listed).hex()
    forged = resealed(made)
    assert verify(forged).wrong == [], "by itself nothing tells it from the true one"
    (wrong,) = verify(forged, seals={first["seal"]: first["digest"]}).wrong
    assert (wrong.place, "kept elsewhere" in wrong.what) == (f"seal {first['seal']}", True)


async def test_what_is_not_sealed_yet_is_said_and_is_no_fault(stage: Switching) -> None:
    command = await stage.done("one")
    verdict = verify(await stage.evidence(command))
    assert (verdict.wrong, verdict.sealed) == ([], 0)
    assert "not sealed yet" in verdict.remarks[0]


async def test_an_edit_in_the_database_shows_in_the_evidence(stage: Switching) -> None:
    command = await stage.done("one")
    await stage.house.rows("UPDATE relay_command SET requester = 'mallory' WHERE command_id = %s", command)
    (wrong,) = verify(await stage.evidence(command)).wrong
    assert wrong.place == "command.requester"
    assert "mallory" in wrong.what


async def test_a_field_that_a_reader_sees_is_what_the_events_say(raw: bytes) -> None:
    made = parsed(raw)
    made["timeline"][1]["words"] = "approved by everybody"
    assert [one.place for one in verify(resealed(made)).wrong] == ["timeline"]
    made = parsed(raw)
    made["made"]["version"] = "99.0"
    assert verify(resealed(made)).wrong == []
    made["timeline"][1]["words"] = "other words for the same"
    verdict = verify(resealed(made))
    assert (verdict.wrong, len(verdict.remarks)) == ([], 1)


async def test_an_approval_is_in_the_evidence(stage: Switching) -> None:
    """A held command and the second person; one's own approval would be a fault."""
    command = await stage.done("one")
    made = parsed(await stage.evidence(command))
    bodies(made)[1]["evidence"] = {"approver": "person:billing"}
    rechained(made)
    made["command"]["approver"] = "person:billing"
    assert "whoever asked for it has approved it" in {one.what for one in verify(resealed(made)).wrong}
    bodies(made)[1]["evidence"] = {"approver": "Wang"}
    rechained(made)
    made["command"]["approver"] = "Wang"
    assert verify(resealed(made)).wrong == []
    assert {"event": 2, "did": "approved", "name": "Wang", "label": ""} in made["people"]


async def test_a_silent_meter_and_its_second_frame(stage: Switching) -> None:
    """Uncertain, read, not executed, sent again: all of it is in the evidence, and holds."""
    stage.relay.deaf = 1
    command = await stage.done("one")
    for _ in range(200):
        if (await stage.house.rows("SELECT state FROM relay_command"))[0][0] == "verified":
            break
        stage.house.clock.passes(10)
        await stage.work()
    raw = await stage.evidence(command)
    assert verify(raw).wrong == []
    made = parsed(raw)
    assert len(made["times"]["sent"]) == 2
    assert "uncertain" in made["times"]["reached"]


async def test_routes_of_timeline_and_evidence(stage: Switching) -> None:
    command = await stage.done("one")
    path = f"/api/v1/relay-commands/{command}"
    http = await stage.house.client("billing")
    told = (await http.get(f"{path}/timeline")).json()
    assert (told["state"], [one["event"] for one in told["events"]]) == ("verified", [1, 2, 3, 4, 5])
    assert told["events"][-1]["words"] == "verified; proved by a relay read; relay open"
    assert told["events"][-1]["words_zh"] == "已证实；继电器状态已证实；继电器断开"
    rest = (await http.get(f"{path}/timeline", params={"after": 4})).json()
    assert [one["event"] for one in rest["events"]] == [5]
    none = (await http.get(f"{path}/timeline", params={"after": 5})).json()
    assert (none["state"], none["events"]) == ("verified", [])
    answer = await http.get(f"{path}/evidence")
    assert answer.headers["content-disposition"] == f'attachment; filename="relay-{command}.json"'
    assert json.loads(answer.content)["command"]["id"] == command
    own = await stage.house.client("east", organisation=EAST)
    assert (await own.get(f"{path}/timeline")).status_code == 200
    foreign = await stage.house.client("west", organisation=WEST)
    for what in ("timeline", "evidence"):
        refused = await foreign.get(f"{path}/{what}")
        assert (refused.status_code, refused.json()["type"]) == (404, "urn:lingdian:problem:command-unknown")
