"""Everybody who may hear bytes: streams, both ends of both families, values and the lens; with what must hold
of each thing they say."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta

from protocols.dlt645 import connection as connection645
from protocols.dlt645 import description, profiles
from protocols.dlt645 import frame as frame645
from protocols.dlt645 import items as items645
from protocols.dlt645 import messages as messages645
from protocols.dlt645 import stream as stream645
from protocols.dlt645.control_messages import ControlRequest
from protocols.dlt645.probe import Probe
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.lens import look
from protocols.lens.conversation import Conversation
from protocols.lens.difference import differences
from protocols.lens.node import Node
from protocols.lens.places import find
from protocols.lens.tree import tree
from protocols.permit import Permit
from protocols.q_gdw376 import connection as connection376
from protocols.q_gdw376 import events as events376
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import messages as messages376
from protocols.q_gdw376 import midnight
from protocols.q_gdw376 import stream as stream376
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.items import form_of
from protocols.q_gdw376.password import Crc16
from tests.fuzz.mutations import Family, Seed

TERMINAL = "02001234"
HELD_AT_MOST = 20_000
"""Bytes a stream may hold once its events are taken: one frame of 16,391 bytes and one piece of damage."""
_WALL = datetime(2026, 11, 30, 23, 50)
_VERSIONS: tuple[dict[str, str], ...] = ({}, {"version": "2005"}, {"version": "2009"})
_BROADCAST_1997 = profiles.load()["broadcast-1997"]
_AFN_HISTORY = 0x0D


class Peers:
    """Feed bytes to everybody. `said` counts what they tell, `steps` are the last things that were done."""

    def __init__(self, chance: random.Random) -> None:
        self.said: Counter[str] = Counter()
        self.now = 0.0
        self._chance = chance
        self._random = chance.random
        self.stream645 = stream645.FrameStream()
        self.stream376 = stream376.FrameStream()
        self.masters645 = {"2007": connection645.Master(), "1997": connection645.Master.of(_BROADCAST_1997)}
        self.slaves645 = {"2007": connection645.Slave(), "1997": connection645.Slave("1997")}
        self.probe = Probe()
        self.master376 = connection376.Master(fcv=True)
        self.master376.terminal = TERMINAL
        self.terminal376 = connection376.Terminal(TERMINAL)
        self.guarded376 = connection376.Terminal(TERMINAL, password=Crc16(0x1234))
        self.guarded376.ec = (1, 2)
        self.conversation = Conversation()
        self._tree: Node | None = None

    # -- what our own ends do: exchanges are judged more closely while they are open

    def ask(self, seed: Seed) -> None:
        """Have the master of that family ask what `seed` answers, and the terminal report something."""
        question = seed.question
        try:
            if isinstance(question, messages376.Request):
                self.master376.terminal = _terminal_of(seed.raw)
                self.master376.send(question, self.now, wall=_WALL if self._random() < 0.2 else None)
            elif question is not None:
                self.masters645[seed.edition].send(question, self.now, seed.permit)
            elif seed.family is Family.TERMINAL:
                self.terminal376.send_spontaneous(0x02, [messages376.encode_unit(0x02, 3, 0)], self.now)
        except LocalProtocolError:
            self.said["still busy"] += 1
            if self._random() < 0.5:
                self.master376.abandon()
                self.masters645[seed.edition].abandon()

    def aim(self, raw: bytearray) -> None:
        """Give a frame to the 376.1 master the number that its open exchange waits for."""
        if self.master376.busy and len(raw) > 16 and raw[6] & 0x80:
            raw[13] = raw[13] & 0xF0 | self._asked_last & 15
            raw[6] &= 0xBF

    @property
    def _asked_last(self) -> int:
        exchange = self.master376._exchange
        return 0 if exchange is None else exchange.pfc

    def _wait(self) -> None:
        """Time goes on: mostly a little, at times beyond a deadline."""
        self.now += 0.01 if self._random() < 0.98 else 35.0

    # -- bytes

    def feed(self, data: bytes, family: Family | None = None) -> None:
        """Give `data` to both streams and to the ends of `family` (None: of both), and read every frame that
        is found to its values."""
        self._wait()
        self._feed_streams(data)
        if family is not Family.TERMINAL:
            self._feed_meters(data)
        if family is not Family.METER:
            self._feed_terminals(data)
        assert self.held <= HELD_AT_MOST

    @property
    def held(self) -> int:
        """The most that any stream holds."""
        return max(self.stream645.held, self.stream376.held, self.master376.held)

    def settle(self) -> None:
        """End what waits for more bytes or for answers, so that what is held is told and let go."""
        for _ in range(4):
            self.now += 40.0
            self.feed(bytes(HELD_AT_MOST))  # fills any frame up
            for slave in self.slaves645.values():
                slave.handle_timeout(self.now)
        self.conversation = Conversation()
        self._tree = None

    def _feed_streams(self, data: bytes) -> None:
        said = self.said
        self.stream645.receive_data(data)
        while (event := self.stream645.next_event()) is not None:
            said["stream645 " + type(event).__name__] += 1
            if isinstance(event, stream645.FoundFrame):
                self._read645(event.frame, event.raw)
        self.stream376.receive_data(data)
        while (found := self.stream376.next_event()) is not None:
            said["stream376 " + type(found).__name__] += 1
            if isinstance(found, stream376.FoundFrame):
                self._read376(found.frame, found.raw)

    def _feed_meters(self, data: bytes) -> None:
        for edition, master in self.masters645.items():
            master.receive_data(data, self.now)
            while (told := master.next_event()) is not None:
                self.said[f"master645 {type(told).__name__}"] += 1
            master.data_to_send()
            if (due := master.next_timeout()) is not None and due <= self.now:
                master.handle_timeout(self.now)
            slave = self.slaves645[edition]
            slave.receive_data(data, self.now)
            while (heard := slave.next_event()) is not None:
                self.said[f"slave645 {type(heard).__name__}"] += 1
                if isinstance(heard, connection645.Asked):
                    self._answer645(slave, heard.message)
            slave.data_to_send()
            if self.now % 1 < 0.01:
                slave.handle_timeout(self.now)
        self._feed_probe(data)

    def _answer645(self, slave: connection645.Slave, message: messages645.Message) -> None:
        if isinstance(message, messages645.ReadRequest):
            data = self._chance.randbytes(int(self._random() * 300))
            try:
                slave.send_data(message, "202311050012", data, self.now, size=1 + int(self._random() * 190))
            except LocalProtocolError:
                self.said["slave645 answer too long"] += 1

    def _feed_probe(self, data: bytes) -> None:
        if not self.probe.busy:
            self.probe = Probe()
            self.probe.start(self.now)
        self.probe.receive_data(data, self.now)
        while (found := self.probe.next_event()) is not None:
            self.said[f"probe {type(found).__name__}"] += 1
        self.probe.data_to_send()
        if (due := self.probe.next_timeout()) is not None and due <= self.now:
            self.probe.handle_timeout(self.now)

    def _feed_terminals(self, data: bytes) -> None:
        master, said = self.master376, self.said
        wall = _WALL + timedelta(seconds=self.now % 1200) if self._random() < 0.2 else None
        master.receive_data(data, self.now, wall)
        while (told := master.next_event()) is not None:
            said[f"master376 {type(told).__name__}"] += 1
            if isinstance(told, connection376.Spontaneous) and self._random() < 0.2:
                master.confirm(told.frame)
        master.data_to_send()
        if (due := master.next_timeout()) is not None and due <= self.now:
            master.handle_timeout(self.now)
        for name, terminal in (("terminal376", self.terminal376), ("guarded376", self.guarded376)):
            terminal.receive_data(data, self.now, wall)
            while (heard := terminal.next_event()) is not None:
                said[f"{name} {type(heard).__name__}"] += 1
                if isinstance(heard, connection376.Asked) and not heard.frame.group:
                    self._answer376(terminal, heard.frame)
            terminal.data_to_send()
            if (due := terminal.next_timeout()) is not None and due <= self.now:
                terminal.handle_timeout(self.now)

    def _answer376(self, terminal: connection376.Terminal, asked: frame376.Frame) -> None:
        if self._random() < 0.3:
            sayings = [messages376.encode_unit(0x00, 1, 0)] * (1 + int(self._random() * 9))
            terminal.answer(asked, sayings, confirm_from=self.now)
        else:
            terminal.deny(asked)

    # -- values

    def _read645(self, frame: frame645.Frame, raw: bytes) -> None:
        assert frame645.build(frame) == raw
        description.describe(frame)
        for edition in ("2007", "1997"):
            message = messages645.from_frame(frame, edition)
            if isinstance(message, messages645.Unknown):
                self.said["unknown"] += 1
                continue
            self._said_again(message, frame)
            if isinstance(message, messages645.ReadReply | messages645.FollowUpReply):
                self._values645(message.di, message.data, edition)

    def _said_again(self, message: messages645.Message, frame: frame645.Frame) -> None:
        if isinstance(message, ControlRequest):
            return
        permit = Permit(f"645 {frame.control:02x}", frame.address, "a mutation")
        try:
            again = messages645.to_frame(message, permit)
        except LocalProtocolError:
            self.said["not said again"] += 1
            return
        assert again == frame, (message, frame)
        self.said["said again"] += 1

    def _values645(self, di: str, data: bytes, edition: str) -> None:
        try:
            values = items645.decode(di, data, edition)
        except RemoteProtocolError as error:
            self.said["value refused"] += 1
            if not 0 <= error.offset <= len(data):
                raise AssertionError((di, data)) from error
            return
        if not values:
            return
        self.said["value"] += 1
        assert all(data[one.offset : one.offset + len(one.raw)] == one.raw for one in values), (di, data)
        try:
            again = items645.encode(di, [one.value for one in values], edition, length=len(data))
        except LocalProtocolError:
            self.said["value not encoded"] += 1
            return
        back = items645.decode(di, again, edition)
        assert [one.value for one in back] == [one.value for one in values], (di, data, again)

    def _read376(self, frame: frame376.Frame, raw: bytes) -> None:
        try:
            assert frame376.build(frame) == raw
        except LocalProtocolError:
            self.said["frame not built"] += 1
        variants = _VERSIONS[int(self._random() * 3)]
        content = messages376.read(frame, variants)
        place = -1
        for unit in content.units:
            assert unit.offset > place or not unit.raw, (raw, unit)
            assert frame.body[unit.offset : unit.offset + len(unit.raw)] == unit.raw, (raw, unit)
            if unit.reason:
                self.said["unit refused"] += 1
                continue
            self.said["unit"] += 1
            if isinstance(unit.value, Fields):
                form = form_of(frame.afn, unit.fn, frame.up)
                assert form is not None
                assert form.encode(unit.value, variants) == unit.raw, (raw, unit)
            elif isinstance(unit.value, events376.Events):
                assert events376.encode_events(unit.value) == unit.raw, (raw, unit)
            else:
                messages376.view(frame.afn, frame.up, unit, variants)
        if frame.afn == _AFN_HISTORY:
            midnight.rows(frame)

    # -- the lens

    def view(self, data: bytes) -> None:
        """Look at `data` as a person would: fields, trees, the conversation, what differs from before."""
        seen = look(data)
        places = find(data).frames
        assert len(seen.frames) == len(places)
        for place in places:
            self.said["seen"] += 1
            node = tree(data, place)
            assert node.raw == data[place.start : place.end]
            self.conversation.add(data, place)
            if self._tree is not None:
                same = self._tree.raw == node.raw
                assert (differences(self._tree, node) == ()) == same, (self._tree.raw, node.raw)
            self._tree = node
        if self.conversation.count > 200:
            self.conversation = Conversation()


def _terminal_of(raw: bytes) -> str:
    return frame376.content(raw).terminal
