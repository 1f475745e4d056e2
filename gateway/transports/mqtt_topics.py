"""Where a terminal's frames are published, and in what form: a profile's words, and hostile ones refused.

Knows no broker and no clock; what it is given comes from strangers, so whatever is wrong with it is one of
two errors here and never another.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from gateway.errors import ConfigurationError

TERMINAL: Final = re.compile(r"[0-9A-Za-z._-]{1,64}")
"""What may stand for `{terminal}`, and for a gateway's id; the whole of one topic level."""

LARGEST_FRAME: Final = 16_391
"""Bytes; two length fields, 376.1 and 645 alike, can say no more."""

LARGEST_PAYLOAD: Final = 65_536
"""Bytes; the largest frame in hex with an envelope of thirty thousand around it."""

Place = Literal["up", "shared", "status"]
"""Which of a profile's templates a topic fits."""


class Unusable(Exception):
    """A topic or payload that is no frame of a terminal; the message says why."""


class Stale(Exception):
    """A frame that was sent too long ago by its own envelope."""


@dataclass(frozen=True, slots=True)
class Topics:
    """A profile's topics. `{terminal}` and `{gateway}` stand for one whole level each, no level is a
    wildcard. Raises ConfigurationError."""

    up: tuple[str, ...] = ("lingdian/{terminal}/up",)
    """what terminals send; with `{gateway}`, to this gateway only"""
    down: str = "lingdian/{terminal}/down"
    """what we send, never retained"""
    status: str | None = "lingdian/{terminal}/will"
    """where the broker publishes a terminal's last will"""
    shared: tuple[str, ...] = ()
    """logins, where several gateways take turns at them; see `MqttSettings.group`"""
    offline: tuple[str, ...] = ()
    """words on the status topic that mean offline; none: whatever comes there does"""
    status_key: str | None = None
    """the status is a JSON object, and the word stands under this key"""

    def __post_init__(self) -> None:
        for template in (*self.up, *self.shared, self.down, *([self.status] if self.status else [])):
            levels = template.split("/")
            if levels.count("{terminal}") != 1 or levels.count("{gateway}") > 1:
                raise ConfigurationError(f"MQTT topic {template!r} needs one level that is {{terminal}}")
            plain = [level for level in levels if level not in ("{terminal}", "{gateway}")]
            if levels[0].startswith("$") or any(set(level) & set("+#{}\0") for level in plain):
                raise ConfigurationError(
                    f"MQTT topic {template!r}: a level is {{terminal}}, {{gateway}} or a plain word"
                )
        if self.status_key is not None and not self.offline:
            raise ConfigurationError("MQTT status_key needs words in offline")

    def means_offline(self, payload: bytes) -> bool:
        """Does this status say that the terminal has gone? Raises Unusable."""
        if not self.offline:
            return True
        if len(payload) > LARGEST_PAYLOAD:
            raise Unusable("a status too large")
        word: object
        if self.status_key is None:
            word = payload.decode("utf-8", "replace").strip()
        else:
            word = _envelope(payload).get(self.status_key)
        return isinstance(word, str) and word.lower() in (one.lower() for one in self.offline)


class TopicMap:
    """The topics of one gateway."""

    def __init__(self, topics: Topics, gateway: str) -> None:
        self._topics = topics
        self._gateway = gateway
        places: list[tuple[Place, str]] = [("up", one) for one in topics.up]
        places += [("shared", one) for one in topics.shared]
        places += [("status", topics.status)] if topics.status else []
        self._places: list[tuple[Place, re.Pattern[str]]] = [
            (place, re.compile(self._filled(template, f"(?P<terminal>{TERMINAL.pattern})", re.escape)))
            for place, template in places
        ]

    def _filled(self, template: str, terminal: str, literal: Any = str) -> str:
        words = {"{terminal}": terminal, "{gateway}": literal(self._gateway)}
        return "/".join(words.get(level) or literal(level) for level in template.split("/"))

    def where(self, topic: str | None) -> tuple[Place, str]:
        """Which place, and which terminal's. Raises Unusable."""
        if topic is not None:
            for place, pattern in self._places:
                if found := pattern.fullmatch(topic):
                    return place, found["terminal"]
        raise Unusable("a topic of no terminal")

    def down(self, terminal: str) -> str:
        """Where a terminal listens."""
        return self._filled(self._topics.down, terminal)

    def of(self, terminal: str) -> list[str]:
        """The exact topics on which one terminal speaks; `+` for all terminals'."""
        templates = [*self._topics.up, *([self._topics.status] if self._topics.status else [])]
        return [self._filled(template, terminal) for template in templates]

    def shared(self, group: str | None) -> list[str]:
        """The filters that gateways of one group take turns at; without a group plain ones."""
        prefix = "" if group is None else f"$share/{group}/"
        return [prefix + self._filled(template, "+") for template in self._topics.shared]


@dataclass(frozen=True, slots=True)
class Payload:
    """A profile's way to write a frame into a message, the same both ways. Raises ConfigurationError."""

    form: Literal["raw", "hex", "json"] = "raw"
    """the bytes themselves; hexadecimal text; a JSON object with the frame under a key"""
    frame_key: str = "frame"
    frame_as: Literal["hex", "base64"] = "hex"
    """how the frame is written in the JSON object"""
    time_key: str | None = None
    """where the JSON object says when it was sent"""
    time_as: Literal["seconds", "milliseconds", "iso"] = "milliseconds"
    """since 1970 in UTC, or ISO 8601 with its offset"""
    oldest_s: float | None = None
    """frames sent longer ago are ignored"""

    def __post_init__(self) -> None:
        if self.time_key is not None and self.form != "json":
            raise ConfigurationError("MQTT time_key needs the form json")
        if self.oldest_s is not None and (self.time_key is None or not self.oldest_s > 0):
            raise ConfigurationError("MQTT oldest_s needs time_key, and more than 0 seconds")

    def frame(self, payload: bytes, now: datetime) -> bytes:
        """The frame's bytes, not looked at. Raises Unusable, Stale."""
        if len(payload) > LARGEST_PAYLOAD:
            raise Unusable("a payload too large")
        try:
            if self.form == "raw":
                frame = payload
            elif self.form == "hex":
                frame = bytes.fromhex(payload.decode("ascii"))
            else:
                frame = self._from_envelope(_envelope(payload), now)
        except ValueError as error:
            raise Unusable(f"not {self.form}: {type(error).__name__}") from None
        if not 0 < len(frame) <= LARGEST_FRAME:
            raise Unusable(f"a frame of {len(frame)} bytes")
        return frame

    def _from_envelope(self, envelope: dict[str, Any], now: datetime) -> bytes:
        text = envelope.get(self.frame_key)
        if not isinstance(text, str):
            raise Unusable("no frame in the envelope")
        if self.time_key is not None and self.oldest_s is not None:
            age = now.timestamp() - self._seconds(envelope.get(self.time_key))
            if not age <= self.oldest_s:
                raise Stale(f"sent {age:.0f} s ago")
        return bytes.fromhex(text) if self.frame_as == "hex" else base64.b64decode(text, validate=True)

    def _seconds(self, stamp: object) -> float:
        """Since 1970. Raises Unusable, ValueError."""
        if self.time_as == "iso" and isinstance(stamp, str):
            instant = datetime.fromisoformat(stamp)
            if instant.tzinfo is None:
                raise Unusable("a time without its offset")
            return (instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
        if self.time_as == "iso" or isinstance(stamp, bool) or not isinstance(stamp, int | float):
            raise Unusable("no time in the envelope")
        try:
            seconds = float(stamp) / (1000 if self.time_as == "milliseconds" else 1)
        except OverflowError:
            seconds = math.inf
        if not math.isfinite(seconds):
            raise Unusable("a time without end")
        return seconds

    def message(self, frame: bytes, now: datetime) -> bytes:
        """The payload that carries `frame` down."""
        if self.form == "raw":
            return frame
        text = (
            frame.hex() if self.form == "hex" or self.frame_as == "hex" else base64.b64encode(frame).decode()
        )
        if self.form == "hex":
            return text.encode("ascii")
        envelope: dict[str, Any] = {self.frame_key: text}
        if self.time_key is not None:
            envelope[self.time_key] = self._stamp(now)
        return json.dumps(envelope, separators=(",", ":")).encode()

    def _stamp(self, now: datetime) -> str | int:
        if self.time_as == "iso":
            return now.isoformat(timespec="milliseconds")
        return int(now.timestamp() * (1000 if self.time_as == "milliseconds" else 1))


def _envelope(payload: bytes) -> dict[str, Any]:
    try:
        envelope = json.loads(payload)
    except (ValueError, RecursionError):
        raise Unusable("not a JSON object") from None
    if not isinstance(envelope, dict):
        raise Unusable("not a JSON object")
    return envelope
