"""Webhooks are told what the outbox holds: in order, at least once, each event until its receiver has it.

A webhook is one worker's for the length of a lease; its cursor moves only behind an answer of 2xx. Where a
receiver cannot be reached, or says 5xx, its events wait, with growing pauses; what it refuses again and
again, or could not take for days, becomes a dead letter and the next one has its turn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from gateway.api.cloudevents import body_of, signed_headers
from gateway.clock import Clock
from gateway.errors import StorageError
from gateway.storage import outbox
from gateway.storage.database import Database
from gateway.storage.outbox import Delivery, Told

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
AT_ONCE: Final = 16
"""webhooks that are told something at one time"""

EVENTS_A_TURN: Final = 100
"""of one webhook, before the others have their turn"""

ANSWER_SECONDS: Final = 10.0
LEASE: Final = timedelta(seconds=60)
TURN_SECONDS: Final = 40.0
"""A turn ends well within its lease."""

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=15)
REFUSALS: Final = 5
"""An event that its receiver refuses so often (4xx) is a dead letter."""

WAITS_AT_MOST: Final = timedelta(days=3)
"""for a receiver that cannot be reached"""

KEPT: Final = timedelta(days=90)
"""Events can be replayed for so long."""

FORGET_EVERY_SECONDS: Final = 3600.0
LONGEST_ERROR: Final = 200

_ASK_AGAIN: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Of 4xx those that say nothing about the event."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try. error None: it was taken."""

    error: str | None = None
    refused: bool = False
    """the receiver does not want this event"""
    gone: bool = False
    """the receiver wants no event ever again"""


class Deliveries:
    """Run it once with `run`, until it is cancelled. to_ourselves: also to this machine and without TLS,
    for the bench."""

    def __init__(self, database: Database, clock: Clock, *, to_ourselves: bool = False) -> None:
        self._database = database
        self._clock = clock
        self._to_ourselves = to_ourselves
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look for events that somebody waits for, and have them told."""
        forgotten, trouble = -FORGET_EVERY_SECONDS, ""
        # Redirects are not followed and no proxy of the environment is used: an event goes where its
        # webhook says.
        async with httpx.AsyncClient(
            timeout=ANSWER_SECONDS,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=AT_ONCE),
        ) as http:
            try:
                while True:
                    try:
                        await outbox.give_places(self._database)
                        await self._start_some(http)
                        if self._clock.monotonic() - forgotten > FORGET_EVERY_SECONDS:
                            forgotten = self._clock.monotonic()
                            await outbox.forget(self._database, self._clock.now() - KEPT)
                        trouble = ""
                    except StorageError as error:
                        if str(error) != trouble:  # said once, not every second of an outage
                            trouble = str(error)
                            log.warning("webhooks cannot be looked up", error=trouble)
                    await self._clock.sleep(POLL_SECONDS)
            finally:
                tasks = list(self._under_way.values())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_some(self, http: httpx.AsyncClient) -> None:
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return
        now = self._clock.now()
        for delivery in await outbox.claim(self._database, now=now, lease=now + LEASE, rows=room):
            if delivery.webhook_id not in self._under_way:
                task = asyncio.create_task(self._turn(http, delivery), name=f"webhook {delivery.webhook_id}")
                self._under_way[delivery.webhook_id] = task

    async def _turn(self, http: httpx.AsyncClient, delivery: Delivery) -> None:
        try:
            await self._tell(http, delivery)
        except StorageError as error:  # the lease ends by itself
            log.warning("a webhook waits for the database", webhook=delivery.webhook_id, error=str(error))
        except Exception:  # one webhook's trouble must not stop the others
            log.exception("a webhook stopped", webhook=delivery.webhook_id)
        finally:
            self._under_way.pop(delivery.webhook_id, None)

    async def _tell(self, http: httpx.AsyncClient, delivery: Delivery) -> None:
        events, until = await outbox.after(
            self._database,
            delivery.cursor,
            rows=EVENTS_A_TURN,
            organisations=delivery.organisations,
            types=delivery.types,
        )
        ends = self._clock.monotonic() + TURN_SECONDS
        cursor = delivery.cursor
        for told in events:
            if self._clock.monotonic() > ends:
                until = cursor
                break
            outcome = await self._post(http, delivery, told)
            if outcome.error is not None:
                await self._not_taken(delivery, cursor, told, outcome)
                return
            if not await self._moved(delivery, cursor, told.place, told.number):
                break
            cursor = told.place
        else:
            await self._moved(delivery, cursor, until, None)
        await outbox.release(self._database, delivery.webhook_id, None)

    async def _moved(self, delivery: Delivery, cursor: int, place: int, number: int | None) -> bool:
        """False: somebody has set the cursor meanwhile, and the turn is over."""
        return await outbox.delivered(
            self._database, delivery.webhook_id, before=cursor, place=place, number=number
        )

    async def _not_taken(self, delivery: Delivery, cursor: int, told: Told, outcome: Outcome) -> None:
        now = self._clock.now()
        error = (outcome.error or "")[:LONGEST_ERROR]
        # what stands behind a success of this turn begins to count anew
        failures = delivery.failures if cursor == delivery.cursor else 0
        log.info("a webhook was not taken", webhook=delivery.webhook_id, number=told.number, reason=error)
        if outcome.gone:
            await outbox.end_webhook(self._database, delivery.webhook_id, by="receiver", at=now)
            return
        given_up: int | None = None
        if outcome.refused and failures + 1 >= REFUSALS:
            given_up = told.place
        elif now - told.at > WAITS_AT_MOST:
            given_up = await outbox.newest_before(self._database, cursor, now - WAITS_AT_MOST)
        if given_up is not None:
            await outbox.bury(self._database, delivery, cursor, given_up, at=now, error=error)
            if outcome.refused:
                await outbox.release(self._database, delivery.webhook_id, None)
                return
        await outbox.failed(self._database, delivery.webhook_id, next_try=now + pause(failures), error=error)

    async def _post(self, http: httpx.AsyncClient, delivery: Delivery, told: Told) -> Outcome:
        body = body_of(told)
        headers = dict(signed_headers(delivery.secret, told.number, self._clock.now(), body))
        try:
            url, host = await self._place_of(delivery.url)
            # The address that was looked at is the one that is dialled; the certificate must be the name's.
            request = http.build_request(
                "POST",
                url,
                content=body,
                headers=headers | {"host": host.netloc},
                extensions={"sni_hostname": host.name},
            )
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await http.send(request, stream=True)
                await response.aclose()
        except TimeoutError:
            return Outcome(f"no answer in {ANSWER_SECONDS:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Outcome(f"{type(error).__name__}: {error}")
        status = response.status_code
        if response.is_success:
            return Outcome()
        refused = response.is_client_error and status not in _ASK_AGAIN
        return Outcome(f"answered {status}", refused=refused, gone=status == HTTPStatus.GONE)

    async def _place_of(self, url: str) -> tuple[str, _Host]:
        """The URL with the address that its name has now. ValueError where nothing may be sent there."""
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        found = await asyncio.get_running_loop().getaddrinfo(
            name, port or parts.scheme, type=socket.SOCK_STREAM
        )
        address = ipaddress.ip_address(found[0][4][0])
        if not self._to_ourselves and (parts.scheme != "https" or not reachable(address)):
            raise ValueError(f"{name} is {address}, where nothing is sent")
        shown = f"[{address}]" if address.version == 6 else str(address)
        dialled = parts._replace(netloc=shown if port is None else f"{shown}:{port}")
        bare = f"[{name}]" if ":" in name else name
        return dialled.geturl(), _Host(name, bare if port is None else f"{bare}:{port}")


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    netloc: str


def reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """May an event be sent there? Not to this machine, nor to what only this link or nobody has: what a token
    may register must not open doors that stand open to ourselves. A company's private networks are fine."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )


def checked_url(url: str, *, to_ourselves: bool) -> str:
    """The URL of a webhook. ValueError that says why nothing can be sent there."""
    parts = urlsplit(url)
    if parts.scheme not in (("https", "http") if to_ourselves else ("https",)) or not parts.hostname:
        raise ValueError("a webhook needs an https:// address")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("a webhook's address has no user, password or fragment")
    _ = parts.port  # ValueError where it is none
    try:
        literal = ipaddress.ip_address(parts.hostname)
    except ValueError:  # a name: looked at when something is sent
        return url
    if not to_ourselves and not reachable(literal):
        raise ValueError(f"nothing is sent to {literal}")
    return url


def pause(failures: int) -> timedelta:
    """How long to wait after so many failures in a row before this one."""
    doubled: int = 1 << min(failures, 16)
    return min(LONGEST_PAUSE, FIRST_PAUSE * doubled)
