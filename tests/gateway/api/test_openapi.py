"""The description of the interface: checked in, whole, and true under made-up requests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any, Final

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from gateway.api import app as api
from gateway.api.server import HttpServer
from gateway.storage.database import Database
from tests.gateway.api.house import made
from tests.gateway.stand_ins import StandInHouse

CHECKED_IN: Final = Path(__file__).parents[3] / "docs" / "openapi.json"


def live() -> dict[str, Any]:
    return api.by_token(StandInHouse().parts, private=True).openapi()


async def test_the_description_that_is_checked_in_is_the_live_one() -> None:
    """Write it anew with `python -m tests.gateway.api.test_openapi` after a change that is meant."""
    assert json.loads(CHECKED_IN.read_text(encoding="utf-8")) == live()


async def test_both_faces_are_described_alike_and_as_openapi_31() -> None:
    described = live()
    assert described == api.full(StandInHouse().parts).openapi()
    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/api/"):
                assert operation["security"], (method, path)
                assert operation["responses"]["default"]["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
                }
                assert "422" not in operation["responses"]
            assert operation["summary"]
            assert operation["description"], (method, path)


@pytest.fixture
def address(conninfo: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Where the live interface listens, in a loop of its own, and a token that may do everything."""
    ready: Queue[tuple[str, str] | BaseException] = Queue()
    stop = threading.Event()

    async def serve() -> None:
        async with await Database.open(conninfo) as database, made(database, tmp_path) as house:
            server = HttpServer.on_tcp(api.by_token(house.parts, private=True), "127.0.0.1", 0)
            serving = asyncio.create_task(server.serve())
            ready.put((f"http://{server.address}", await house.token("fuzz")))
            await asyncio.to_thread(stop.wait)
            server.stop()
            await serving

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            ready.put(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    found = ready.get(timeout=120)
    assert isinstance(found, tuple), found
    yield found
    stop.set()
    thread.join(60)


CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]

NO_FAULT_OF_OURS: Final = {"terminal-absent", "terminal-silent"}
"""Problems of 5xx that a made-up request may meet here: no terminal is connected."""

WITHOUT_END: Final = "/api/v1/events"

EXAMPLES: Final = 10
"""of each route; a failure is kept by hypothesis and tried first the next time"""


@pytest.mark.database
def test_made_up_requests_are_answered_as_described(address: tuple[str, str]) -> None:
    url, token = address
    schema = schemathesis.openapi.from_dict(live())
    asked: set[str] = set()
    seen: Counter[int] = Counter()
    with requests.Session() as session:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            if operation.path == WITHOUT_END:
                continue
            asked.add(operation.label)

            right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
            wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

            @hypothesis.given(case=right | wrong)
            @hypothesis.settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            def answered(case: Any) -> None:
                response = case.call(
                    base_url=url, session=session, headers={"authorization": f"Bearer {token}"}
                )
                seen[response.status_code] += 1
                if response.status_code >= 500:
                    kind = response.json()["type"].rpartition(":")[2]
                    assert kind in NO_FAULT_OF_OURS, response.text
                case.validate_response(response, checks=CHECKS)

            answered()
    assert len(asked) == sum(len(methods) for methods in live()["paths"].values()) - 1
    # not all were turned away at the door
    assert seen[200] > 20
    assert seen[422] > 20
    assert 500 not in seen
    print(f"answers by status: {dict(sorted(seen.items()))}")


def write() -> None:
    CHECKED_IN.write_text(
        json.dumps(live(), ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":

    async def _write() -> None:
        write()

    asyncio.run(_write())
