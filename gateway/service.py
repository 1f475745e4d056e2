"""The running gateway: the only file that knows all parts. Builds them, runs them, stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import psycopg
import structlog

from gateway.api import app as api
from gateway.api.deliveries import Deliveries
from gateway.api.parts import Parts, RelayControl
from gateway.api.runs import Collections
from gateway.api.server import HttpServer, Tls
from gateway.clock import Clock
from gateway.collection.collector import Collector
from gateway.collection.schedule import Schedule
from gateway.collection.stores import CollectionStore
from gateway.config import ClockSettings, ControlSettings, HttpSettings, Settings, split_address
from gateway.control import policy, security
from gateway.control.billing_check import BillingCheck
from gateway.control.epoch import StateFile
from gateway.control.gates import AskBilling, billing_not_asked
from gateway.control.journal_file import JournalFile, OsFolder
from gateway.control.own_clock import synchronised
from gateway.control.station import Station
from gateway.errors import ConfigurationError, StorageError
from gateway.field.machine import own_key
from gateway.metrics import Metrics
from gateway.session.registry import Registry
from gateway.session.settings import DEFAULT_PROFILE, SessionSettings, meter_profiles, terminal_profiles
from gateway.session.stores import TerminalStore
from gateway.state import State
from gateway.storage import embedded
from gateway.storage.database import Connection, Database, connection_arguments, cut_after, first_line
from gateway.storage.readings import ReadingWriter
from gateway.ways_in import WaysIn

STOP_SECONDS: Final = 7.0
"""For a clean stop as a whole; what has not ended by then is left (nothing unconfirmed is lost)."""

LOOK_SECONDS: Final = 2.0
"""Between two looks at the database; also the longest that one look may take."""

REVIVE_SECONDS: Final = 10.0
"""An embedded server that has been gone for so long is started again: nobody else will. Whoever stopped it on
purpose, for a copy of its files, has stopped the gateway before."""

GARBAGE_THRESHOLDS: Final = (10_000, 5, 1_000)
"""Allocations between looks for garbage, by generation. A sweep makes hundreds of thousands of tuples a
second that live for a moment and form no cycles: looking through them all would cost a good part of it. The
second generation is looked through often, since it then holds little: a look stops everything else."""

log = structlog.get_logger()


async def run(settings: Settings, state: State, announce: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly, within STOP_SECONDS.

    `announce` is called once, when everything is served, with the real addresses. InputError where another
    gateway owns the state; ConfigurationError where an address cannot be had; StorageError where the database
    cannot be used at the start (later it may come and go).
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with state.owned():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        press = asyncio.create_task(_press(stop, asyncio.current_task()))
        try:
            async with database_of(settings, state) as database:
                await database.migrate()
                await _serve(settings, state, database, stop, announce)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            log.warning("not everything ended in time; what was not confirmed will come again")
        else:
            log.info("stopped")
        finally:
            press.cancel()


async def _press(stop: asyncio.Event, whole: asyncio.Task[Any] | None) -> None:
    """Once the stop has lasted too long, cancel `whole`, and again until it gives way."""
    await stop.wait()
    await asyncio.sleep(STOP_SECONDS)
    while whole is not None and not whole.done():
        whole.cancel()
        await asyncio.sleep(0.5)


@asynccontextmanager
async def database_of(settings: Settings, state: State) -> AsyncIterator[Database]:
    """The configured database, or the embedded one of the state folder, started while it is used here.

    An embedded server that another process uses goes on when this one is done with it.
    """
    configured = settings.database.url
    conninfo = (
        configured.get_secret_value() if configured is not None else await embedded.start(state.database)
    )
    try:
        async with await Database.open(
            conninfo,
            connections=settings.database.pool_size,
            connect_timeout=settings.database.connect_timeout_seconds,
            statement_timeout=settings.database.statement_timeout_seconds,
        ) as database:
            yield database
    finally:
        if configured is None:
            await embedded.stop(state.database)


def clock_of(settings: ClockSettings) -> Clock:
    """The clock of the settings: the real one unless the bench wants another."""
    if settings.start is None and settings.speed == 1.0:
        return Clock()
    origin = time.time() if settings.origin is None else settings.origin
    start = origin if settings.start is None else settings.start.timestamp()
    return Clock(origin, start, settings.speed)


def session_settings(settings: Settings) -> SessionSettings:
    """The session room's settings; a profile's gaps are filled from the general ones."""
    session = settings.session
    profiles = terminal_profiles(
        {name: profile.row() for name, profile in settings.profiles.items()},
        {
            "clock_tolerance_s": session.clock_tolerance_seconds,
            "points_a_request": settings.collection.points_per_request,
            "reply_timeout_s": session.reply_timeout_seconds,
        },
    )
    return SessionSettings(
        login_deadline_s=session.login_deadline_seconds,
        heartbeat_s=session.heartbeat_seconds,
        missed_heartbeats=session.missed_heartbeats,
        listen_after_takeover_s=session.takeover_listen_seconds,
        reply_timeout_s=session.reply_timeout_seconds,
        repeats=session.repeats,
        read_buffer_bytes=session.read_buffer_bytes,
        refuse_unknown=session.unknown_terminals == "refuse",
        correct_clock=session.clock_policy == "correct",
        fetch_events=session.fetch_events,
        forward_message_timeout_s=session.forward_message_timeout_seconds,
        forward_margin_s=session.forward_margin_seconds,
        relay_carrier_timeout_s=session.relay_carrier_timeout_seconds,
        relay_wire_timeout_s=session.relay_wire_timeout_seconds,
        relay_margin_s=session.relay_margin_seconds,
        relay_pauses_reading=session.relay_pauses_reading,
        meters=meter_profiles({name: meter.row() for name, meter in settings.meters.items()}),
        default_profile=profiles[DEFAULT_PROFILE],
        profiles=profiles,
    )


def control_rules(settings: ControlSettings) -> policy.Rules:
    """The rules of relay control. ConfigurationError where the calendar cannot be read."""
    calendar = policy.own_calendar()
    if settings.calendar_file is not None:
        try:
            text = settings.calendar_file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"control.calendar_file cannot be read 日历文件无法读取: {error}"
            ) from error
        calendar = policy.read_calendar(text, str(settings.calendar_file))
    return policy.Rules(
        calendar=calendar,
        from_hour=settings.from_hour,
        to_hour=settings.to_hour,
        any_day=settings.any_day,
        limits=policy.Limits(
            settings.area_limit,
            settings.requester_limit,
            settings.limit,
            timedelta(minutes=settings.window_minutes),
        ),
        trip_lasts=timedelta(hours=settings.trip_hours),
        notice_needed=settings.notice_needed,
        without_notice=settings.without_notice,
    )


@asynccontextmanager
async def _control(
    settings: Settings,
    state: State,
    database: Database,
    registry: Registry,
    clock: Clock,
    metrics: Metrics,
) -> AsyncIterator[Station | None]:
    """Relay control, with the crypto machine and the way to billing; None where it is switched off."""
    control = settings.control
    if not control.enabled:
        yield None
        return
    rules = control_rules(control)
    async with AsyncExitStack() as stack:
        sealing = security.open_module(settings.security)
        if sealing is not None:
            stack.push_async_callback(sealing.close)
        ask_billing: AskBilling = billing_not_asked
        if control.billing_url is not None and control.billing_secret is not None:
            check = BillingCheck(
                control.billing_url,
                control.billing_secret.get_secret_value(),
                clock,
                timeout_s=control.billing_timeout_seconds,
            )
            stack.push_async_callback(check.close)
            ask_billing = check
        station = Station(
            database,
            registry,
            clock,
            lambda: rules,
            StateFile(state.epoch),
            JournalFile(OsFolder(state.folder)),
            metrics,
            own_key(state.ticket_key),
            profile=session_settings(settings).meter,
            sealing=sealing,
            ask_billing=ask_billing,
            clock_trusted=lambda: control.trust_own_clock or synchronised(),
        )
        await station.open()
        yield station


@dataclass(slots=True)
class _Health:
    """What /readyz tells: whether the database answers, and whether the gateway is stopping."""

    database: str | None = None
    stopping: bool = False

    def not_ready(self) -> str | None:
        return "the gateway is stopping 网关正在停止" if self.stopping else self.database


async def _serve(
    settings: Settings,
    state: State,
    database: Database,
    stop: asyncio.Event,
    announce: Callable[[dict[str, Any]], None],
) -> None:
    """All parts over an open database, until `stop`; then terminals first, the writer's rest, HTTP last."""
    clock, metrics, health = clock_of(settings.clock), Metrics(), _Health()
    sessions = session_settings(settings)
    writer = ReadingWriter(
        database, metrics, batch_rows=settings.database.batch_rows, queue_rows=settings.database.queue_rows
    )
    registry = Registry(TerminalStore(database), writer, sessions, clock, metrics)
    async with writer, _control(settings, state, database, registry, clock, metrics) as station:
        collector = Collector(
            registry,
            CollectionStore(database),
            writer,
            clock,
            settings.collection,
            metrics,
            store_days=lambda profile: sessions.profile(profile).store_days,
        )
        collections = Collections(collector, clock)
        parts = Parts(
            clock,
            metrics,
            database,
            writer,
            registry,
            collections,
            health.not_ready,
            relay=None
            if station is None
            else RelayControl(
                station.requests,
                station.batches,
                station.blocks,
                station.switches,
                station.journal,
                station.way,
                station.tickets,
            ),
            webhooks_to_ourselves=settings.http.webhooks_to_ourselves,
        )
        deliveries = Deliveries(database, clock, to_ourselves=settings.http.webhooks_to_ourselves)
        servers = [HttpServer.on_socket(api.full(parts), state.socket)]
        if settings.http.address is not None:
            with _naming("http.address", settings.http.address):
                servers.append(
                    HttpServer.on_tcp(
                        api.by_token(parts, private=settings.http.private()),
                        *split_address(settings.http.address),
                        tls=_tls(settings.http),
                    )
                )
        ways_in = WaysIn(settings, registry, clock, metrics, database)
        listening = await ways_in.open()
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.serve())
            background = [
                group.create_task(_watch(settings, state, database, metrics, health)),
                group.create_task(deliveries.run()),
                group.create_task(parts.fanout.run(database, clock)),
            ]
            if station is not None:
                background.append(group.create_task(station.run()))
            if settings.collection.enabled:
                schedule = Schedule(collector, registry, database, clock, settings.collection)
                background.append(group.create_task(schedule.run()))
            try:
                ready = {
                    "listen": listening,
                    "http": servers[1].address if len(servers) > 1 else None,
                    "socket": str(state.socket),
                    "pid": os.getpid(),
                }
                log.info("serving", **ready)
                announce({"event": "ready"} | ready)
                await stop.wait()
            finally:
                log.info("stopping")
                health.stopping = True
                for task in background:
                    task.cancel()
                await ways_in.close()
                await collections.close()
                await registry.close()
                for server in servers:
                    server.stop()
                state.socket.unlink(missing_ok=True)


def _tls(http: HttpSettings) -> Tls | None:
    """ConfigurationError where a file cannot be read, or is not what it should be."""
    if http.certificate is None or http.key is None:
        return None
    tls = Tls(http.certificate, http.key, http.client_authorities)
    try:
        tls.context()
    except OSError as error:
        raise ConfigurationError(
            f"http: certificate, key or client_authorities cannot be used 证书无法使用: {error}"
        ) from error
    return tls


@contextmanager
def _naming(key: str, address: str) -> Iterator[None]:
    """An address that cannot be had is the setting's fault."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{key}: cannot listen on {address} 无法监听: {error.strerror}; choose another address or end the"
            " program that uses it"
        ) from error


async def _watch(
    settings: Settings, state: State, database: Database, metrics: Metrics, health: _Health
) -> None:
    """Look at the database every LOOK_SECONDS; start an embedded server again that stays gone.

    Over a connection of its own: the pool may be busy with a storm of logins while the database is well.
    """
    connection: Connection | None = None
    gone_since: float | None = None
    try:
        while True:
            try:
                with cut_after(LOOK_SECONDS) as patience:
                    connection = connection or await _connect(database)
                    patience.begin(connection)
                    await connection.execute("SELECT 1")
                if health.database is not None:
                    # it is back: dead connections, found one by one, would cost callers seconds
                    await database.pool.check()
                trouble = None
            except psycopg.Error as error:
                if connection is not None:
                    await connection.close()
                    connection = None
                said = first_line(error) if str(error) else f"no answer in {LOOK_SECONDS:.0f} s"
                trouble = f"the database cannot be used now 数据库不可用: {said}"
            _note_health(trouble, health, metrics)
            embedded_gone = settings.database.url is None and embedded.server_pid(state.database) is None
            if trouble is None or not embedded_gone:
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            elif time.monotonic() - gone_since > REVIVE_SECONDS:
                await _revive(state)
                gone_since = None
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        if connection is not None:
            await connection.close()


async def _connect(database: Database) -> Connection:
    arguments = connection_arguments(LOOK_SECONDS, LOOK_SECONDS)
    return await psycopg.AsyncConnection.connect(database.conninfo, autocommit=True, **arguments)


def _note_health(trouble: str | None, health: _Health, metrics: Metrics) -> None:
    if trouble is not None and health.database is None:
        log.error("the database cannot be used", reason=trouble)
    elif trouble is None and health.database is not None:
        log.info("the database is back")
    health.database = trouble
    metrics.ready.set(health.not_ready() is None)


async def _revive(state: State) -> None:
    log.warning("the embedded database is gone; starting it again", folder=str(state.database))
    try:
        await embedded.stop(state.database)
        await embedded.start(state.database)
    except StorageError as error:
        log.error("the embedded database does not start", reason=str(error))
