"""A gateway for `lingdian relay`: on a real unix socket, with a real database and a made meter behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from gateway.api import app as api
from gateway.api.server import HttpServer
from gateway.cli import app
from gateway.state import State as StateFolder
from gateway.storage.database import Database
from tests.gateway.control.switching import Switching, switching

runner = CliRunner()


class Running:
    """A gateway that answers on the socket of a state folder and, by token, on TCP, in a thread."""

    def __init__(self, folder: Path, conninfo: str) -> None:
        self.state = StateFolder(folder / "state")
        self.state.create()
        self.works = True
        self._folder = folder
        self._conninfo = conninfo
        self._up = threading.Event()
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with (
            await Database.open(self._conninfo) as database,
            switching(database, self._folder) as stage,
        ):
            self.stage = stage
            self.token = await stage.house.token("billing")
            servers = [
                HttpServer.on_socket(api.full(stage.house.parts), self.state.socket),
                HttpServer.on_tcp(api.by_token(stage.house.parts, private=True), "127.0.0.1", 0),
            ]
            self.address = servers[1].address
            tasks = [asyncio.create_task(one.serve()) for one in servers]
            work = asyncio.create_task(self._work(stage))
            self._up.set()
            await self._stop.wait()
            work.cancel()
            for one in servers:
                one.stop()
            await asyncio.gather(*tasks)

    async def _work(self, stage: Switching) -> None:
        while True:
            if not (self.works and await stage.work()):
                await asyncio.sleep(0.02)

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()

    def seal(self) -> None:
        """Seal what is not sealed yet."""
        asyncio.run_coroutine_threadsafe(self.stage.seal(), self._loop).result(10)

    def call(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error of `lingdian relay`."""
        result = runner.invoke(app, ["--state", str(self.state.folder), "relay", *words])
        return result.exit_code, result.stdout, result.stderr

    def json(self, *words: str) -> tuple[int, Any]:
        code, out, err = self.call(*words, "--json")
        assert out, err
        return code, json.loads(out)
