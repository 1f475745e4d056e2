"""What the gateway counts, for Prometheus. One `Metrics` a process; a test makes its own, so no count leaks.

Every labelled child that a hot path needs is made here once and kept: `labels()` hashes on each call.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final, Literal, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from gateway.command import ENDS, RESTORING, Action, Command, State
from gateway.model import Reason, Source

Outcome = Literal["answered", "confirmed", "denied", "silent", "broken", "late"]
"""How an exchange with a terminal ended; `broken` is a lost link, `late` an answer that nobody waited for."""

Filing = Literal["new", "filled", "equal", "won", "lost"]
"""What became of a reading in the database; `won` and `lost` are the two ends of a conflict."""

EventSource = Literal["fetched", "pushed"]
"""Asked for because a terminal said that some wait, or sent by it of its own accord."""

Dial = Literal["made", "failed"]

Handshake = Literal["not_tls", "certificate", "protocol", "deadline", "limit", "broken"]
"""Why a TLS handshake failed; `certificate`: the peer's, or ours to the peer; `limit`: too many under way."""

MqttFate = Literal[
    "taken",
    "duplicate",
    "settled before",
    "retained",
    "stale",
    "unusable",
    "refused",
    "given back",
    "dropped",
    "poisonous",
]
"""What became of an MQTT message: handed to a session, or a status; said to be a duplicate (counted beside
the others); settled in an earlier connection; ignored as retained or too old; no frame of a terminal; no
more links; not acknowledged, so that it comes again; lost, at QoS 0 or because a session does not read;
given up."""

OUTCOMES: Final[tuple[Outcome, ...]] = ("answered", "confirmed", "denied", "silent", "broken", "late")
FILINGS: Final[tuple[Filing, ...]] = ("new", "filled", "equal", "won", "lost")

DIALS: Final[tuple[Dial, ...]] = ("made", "failed")
HANDSHAKES: Final[tuple[Handshake, ...]] = (
    "not_tls",
    "certificate",
    "protocol",
    "deadline",
    "limit",
    "broken",
)

EVENT_SOURCES: Final[tuple[EventSource, ...]] = ("fetched", "pushed")

EXCHANGE_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""From a terminal on the bench to one on a bad 2G link with two repeats."""

WRITE_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""From an idle database to one that was stopped and started."""


FRAME_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86_400.0)
"""From a request whose terminal stands by to a trip that waits for tomorrow's hours."""

PROOF_SECONDS: Final = (
    0.05,
    0.1,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14_400.0,
    86_400.0,
)
"""From a meter on the bench to one behind a carrier that is heard of once a night."""


class FiledCounts(Protocol):
    """How many rows of a batch ended each way; see `Filing`."""

    @property
    def new(self) -> int: ...
    @property
    def filled(self) -> int: ...
    @property
    def equal(self) -> int: ...
    @property
    def won(self) -> int: ...
    @property
    def lost(self) -> int: ...


class Metrics:
    """Counters, gauges and histograms, by attribute; `exposition()` gives the text that Prometheus reads."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=True)
        self.registry = registry
        ProcessCollector(registry=registry)

        # links and sessions
        self.connections = Gauge("lingdian_connections", "Open connections of terminals", registry=registry)
        self.connections_refused = Counter(
            "lingdian_connections_refused",
            "Connections closed because a limit was reached",
            registry=registry,
        )
        self.turned_away = Counter(
            "lingdian_peers_turned_away",
            "Connections closed because the peer said nothing that could be a frame",
            registry=registry,
        )
        dials = Counter("lingdian_dials", "Tries to make a link, by outcome", ["outcome"], registry=registry)
        self.dials: dict[Dial, Counter] = {d: dials.labels(d) for d in DIALS}
        handshakes = Counter(
            "lingdian_handshakes_failed",
            "Connections closed in their TLS handshake, by reason",
            ["reason"],
            registry=registry,
        )
        self.handshakes_failed: dict[Handshake, Counter] = {h: handshakes.labels(h) for h in HANDSHAKES}
        self.datagrams_dropped = Counter(
            "lingdian_datagrams_dropped",
            "UDP datagrams dropped because too much of their peer waited",
            registry=registry,
        )
        self.sessions = Gauge("lingdian_sessions", "Terminals logged in", registry=registry)
        self.sessions_contested = Gauge(
            "lingdian_sessions_contested", "Terminal addresses that two devices use", registry=registry
        )
        self.logins = Counter("lingdian_logins", "Logins accepted", registry=registry)
        self.logins_unknown = Counter(
            "lingdian_logins_unknown", "Logins of terminals that are not in the assets", registry=registry
        )
        self.logins_refused = Counter(
            "lingdian_logins_refused",
            "Logins denied: not in the assets, or not the terminal that the link is for",
            registry=registry,
        )
        self.takeovers = Counter(
            "lingdian_takeovers", "Logins that took over from an older connection", registry=registry
        )
        self.heartbeats = Counter("lingdian_heartbeats", "Heartbeats answered", registry=registry)
        self.clocks_off = Gauge(
            "lingdian_terminal_clocks_off",
            "Terminals whose clock is off by more than allowed",
            registry=registry,
        )

        # frames and exchanges
        frames = Counter("lingdian_frames", "Whole frames", ["direction"], registry=registry)
        self.frames_up: Counter = frames.labels("up")
        self.frames_down: Counter = frames.labels("down")
        self.damaged = Counter("lingdian_damaged", "Runs of bytes that were no frame", registry=registry)
        self.damaged_bytes = Counter(
            "lingdian_damaged_bytes", "Bytes that belonged to no frame", registry=registry
        )
        exchanges = Counter(
            "lingdian_exchanges",
            "Exchanges with terminals, by how they ended",
            ["outcome"],
            registry=registry,
        )
        self.exchanges: dict[Outcome, Counter] = {o: exchanges.labels(o) for o in OUTCOMES}
        self.exchange_seconds = Histogram(
            "lingdian_exchange_seconds",
            "From request to whole answer",
            buckets=EXCHANGE_SECONDS,
            registry=registry,
        )

        self.mqtt_messages = Gauge(
            "lingdian_mqtt_messages",
            "MQTT messages since the start, by what became of them",
            ["fate"],
            registry=registry,
        )

        # events
        events = Counter(
            "lingdian_events", "Events filed that were new, by how they came", ["source"], registry=registry
        )
        self.events: dict[EventSource, Counter] = {s: events.labels(s) for s in EVENT_SOURCES}
        self.events_lost = Counter(
            "lingdian_events_lost", "Events that a terminal counted and does not give", registry=registry
        )

        # readings and the writer
        readings = Counter(
            "lingdian_readings", "Readings filed, by where they came from", ["source"], registry=registry
        )
        self.readings: dict[Source, Counter] = {s: readings.labels(s.name.lower()) for s in Source}
        filings = Counter(
            "lingdian_filings", "Readings by what the database did with them", ["result"], registry=registry
        )
        self.filings: dict[Filing, Counter] = {f: filings.labels(f) for f in FILINGS}
        failures = Counter(
            "lingdian_failures", "Due readings not had this time, by reason", ["reason"], registry=registry
        )
        self.failures: dict[Reason, Counter] = {r: failures.labels(r.value) for r in Reason}
        self.write_rows = Counter("lingdian_write_rows", "Rows committed by the writer", registry=registry)
        self.write_batches = Counter(
            "lingdian_write_batches", "Batches committed by the writer", registry=registry
        )
        self.write_retries = Counter(
            "lingdian_write_retries", "Batches tried again after the database failed", registry=registry
        )
        self.write_seconds = Histogram(
            "lingdian_write_seconds",
            "One batch, from COPY to COMMIT",
            buckets=WRITE_SECONDS,
            registry=registry,
        )
        self.write_queue_rows = Gauge(
            "lingdian_write_queue_rows", "Rows waiting for the writer", registry=registry
        )

        # relay commands
        commands = Counter(
            "lingdian_relay_commands", "Relay commands ended, by outcome", ["outcome"], registry=registry
        )
        self.relay_outcomes: dict[State, Counter] = {s: commands.labels(s.value) for s in sorted(ENDS)}
        to_frame = Histogram(
            "lingdian_relay_request_to_frame_seconds",
            "From a request, or the time from which it may be sent, to the write of its first frame",
            ["action"],
            buckets=FRAME_SECONDS,
            registry=registry,
        )
        self.relay_to_frame: dict[Action, Histogram] = {a: to_frame.labels(a.value) for a in Action}
        to_verified = Histogram(
            "lingdian_relay_request_to_verified_seconds",
            "From a request, or the time from which it may be sent, to its proof",
            ["action"],
            buckets=PROOF_SECONDS,
            registry=registry,
        )
        self.relay_to_verified: dict[Action, Histogram] = {a: to_verified.labels(a.value) for a in Action}
        to_energised = Histogram(
            "lingdian_relay_request_to_energised_seconds",
            "From a request to the first read that shows power behind the meter",
            ["action"],
            buckets=PROOF_SECONDS,
            registry=registry,
        )
        self.relay_to_energised: dict[Action, Histogram] = {
            a: to_energised.labels(a.value) for a in sorted(RESTORING)
        }
        self.relay_oldest_uncertain = Gauge(
            "lingdian_relay_oldest_uncertain_seconds",
            "Since when the oldest uncertain relay command was sent; 0: none is uncertain",
            registry=registry,
        )
        self.relay_oldest_close = Gauge(
            "lingdian_relay_oldest_open_close_seconds",
            "Age of the oldest close or permit-close that has not ended; 0: none is open",
            registry=registry,
        )
        self.journal_closes = Gauge(
            "lingdian_relay_journal_closes",
            "Closes in the journal that the database does not have yet",
            registry=registry,
        )
        self.journal_damaged = Gauge(
            "lingdian_relay_journal_damaged_lines",
            "Lines of the close journal that could not be read when it was opened",
            registry=registry,
        )

        # collection and readiness
        self.collection_due = Gauge(
            "lingdian_collection_due", "Readings due in the newest collection", registry=registry
        )
        self.collection_missing = Gauge(
            "lingdian_collection_missing",
            "Readings still missing in the newest collection",
            registry=registry,
        )
        self.collection_midnight = Gauge(
            "lingdian_collection_midnight_seconds",
            "The latest midnight that the newest collection asks for, Unix time; 0: none yet",
            registry=registry,
        )
        self.collections_running = Gauge(
            "lingdian_collections_running", "Collections that run now", registry=registry
        )
        self.ready = Gauge(
            "lingdian_ready", "1 while the gateway and its database are ready", registry=registry
        )

    def exposition(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)

    def batch_filed(self, rows: int, seconds: float, filed: FiledCounts) -> None:
        """The writer committed a batch; seconds from its first byte to COMMIT."""
        self.write_rows.inc(rows)
        self.write_batches.inc()
        self.write_seconds.observe(seconds)
        for way in FILINGS:
            self.filings[way].inc(getattr(filed, way))

    def relay_frame(self, command: Command, at: datetime) -> None:
        """A control frame was handed to the socket at `at`; the first of a command counts."""
        if command.attempts == 1:
            self.relay_to_frame[command.action].observe(_waited(command, at))

    def relay_happened(self, command: Command, kind: str, at: datetime) -> None:
        """An event of a relay command is durable; kind: as in the chain, `step` for a new state."""
        if kind == "step" and command.state in ENDS:
            self.relay_outcomes[command.state].inc()
            if command.state is State.VERIFIED:
                self.relay_to_verified[command.action].observe(_waited(command, at))
        elif kind == "energised" and command.energised_at is not None and command.action in RESTORING:
            self.relay_to_energised[command.action].observe(_waited(command, command.energised_at))

    def relay_oldest(self, uncertain: datetime | None, close: datetime | None, now: datetime) -> None:
        """Since when the oldest uncertain command and the oldest open close have been so."""
        for gauge, since in ((self.relay_oldest_uncertain, uncertain), (self.relay_oldest_close, close)):
            gauge.set(0.0 if since is None else max(0.0, (now - since).total_seconds()))

    def watch_journal(self, closes: Callable[[], int], damaged: Callable[[], int]) -> None:
        """Ask these, whenever somebody asks us: closes that wait in the journal, and its damaged lines."""
        self.journal_closes.set_function(closes)
        self.journal_damaged.set_function(damaged)

    def watch_mqtt(self, messages: Callable[[MqttFate], int]) -> None:
        """Ask this, whenever somebody asks us: messages of all brokers by what became of them."""
        for fate in get_args(MqttFate):
            self.mqtt_messages.labels(fate).set_function(partial(messages, fate))

    def rows_waiting(self, rows: int) -> None:
        """Rows handed to the writer and not yet committed."""
        self.write_queue_rows.set(rows)

    def database_lost(self, reason: str) -> None:
        """The writer could not file its batch and will try again."""
        self.write_retries.inc()


def _waited(command: Command, until: datetime) -> float:
    """Seconds from a command's request, or from when it may be sent where that is later."""
    since = command.created_at if command.not_before is None else max(command.created_at, command.not_before)
    return max(0.0, (until - since).total_seconds())
