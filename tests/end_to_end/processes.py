"""Gateway and simulator as processes on this machine, as a person would start them. For tests and benchmarks.

Each ends with its `with` block, by its own process id; what it says on standard error is in a log file.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

READY_SECONDS = 120.0
STOP_SECONDS = 20.0


class Process:
    """A child whose standard output is lines of JSON."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("LINGDIAN_")},
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self, arguments: Iterable[str]) -> None:
        """Start `python` with `arguments`."""
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )
        self._output = self._process.stdout
        self._reader = threading.Thread(target=self._read, args=(self._output,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[bytes]) -> None:
        for raw in output:
            self._lines.put(json.loads(raw))

    def line(self, event: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """The next line with that `event`; AssertionError with the log's end where none comes."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                said = self._lines.get(timeout=0.1)
            except queue.Empty:
                if not self.running or time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} did not say {event!r}:\n{self.last_words()}") from None
                continue
            if said.get("event") == event:
                return said

    def last_words(self, lines: int = 30) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait."""
        if self._process is not None:
            self._process.kill()
        self._reap(STOP_SECONDS)

    def stop(self) -> int | None:
        """SIGTERM, and kill -9 where that does not end it in time; the exit code."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap(STOP_SECONDS)
        return self._process.returncode

    def _reap(self, seconds: float) -> None:
        if self._process is None:
            return
        self._process.wait(seconds)
        if self._reader is not None:
            self._reader.join(seconds)
        if self._output is not None:
            self._output.close()
            self._output = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()
        else:
            self._reap(STOP_SECONDS)


class Gateway(Process):
    """`lingdian serve` in a state folder of its own, and the command line on that state."""

    def __init__(
        self,
        state: Path,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        module: str = "gateway",
    ) -> None:
        """module: what is run as `python -m`; it takes the arguments of `lingdian`."""
        state.mkdir(parents=True, exist_ok=True)
        super().__init__("gateway", state, {"LINGDIAN_COLLECTION__ENABLED": "false", **(environment or {})})
        self.state = state
        self.module = module
        self.host = "127.0.0.1"
        self.port = port or free_port()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> dict[str, Any]:
        """Start it and wait until terminals may dial in; what it said of itself."""
        self.launch(
            ["-m", self.module, "--state", str(self.state), "serve", f"--listen={self.address}", "--json"]
        )
        return self.line("ready")

    def run(self, *words: str, ok: Iterable[int] = (0,), seconds: float = 900.0) -> str:
        """Standard output of `lingdian WORDS` on this state. AssertionError for an exit code not in `ok`."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "--state", str(self.state), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            timeout=seconds,
            check=False,
        )
        if done.returncode not in ok:
            said = f"{done.stderr.decode()}\n{self.last_words()}"
            raise AssertionError(f"lingdian {' '.join(words)}: exit {done.returncode}\n{said}")
        return done.stdout.decode()

    def json(self, *words: str, ok: Iterable[int] = (0,), seconds: float = 900.0) -> Any:
        """`run` with --json, read."""
        return json.loads(self.run(*words, "--json", ok=ok, seconds=seconds))

    def import_assets(self, simulator: Simulator) -> None:
        """Bring in the assets that the simulator has grown."""
        folder = simulator.assets
        self.json("import", f"--terminals={folder / 'terminals.csv'}", f"--meters={folder / 'meters.csv'}")

    def in_background(self, *words: str) -> subprocess.Popen[bytes]:
        """`lingdian WORDS` going on beside the test; the caller ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", "--state", str(self.state), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )


class Simulator(Process):
    """`python -m simulator district` with its files in `folder`."""

    def __init__(
        self, folder: Path, *, terminals: int, meters: int, day: str, seed: int = 1, more: Iterable[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__("simulator", folder)
        self.assets = folder / "assets"
        self.truth = folder / "truth.csv"
        self.faults_file = folder / "faults.json"
        self._district = [
            "-m",
            "simulator",
            "district",
            f"--terminals={terminals}",
            f"--meters={meters}",
            f"--seed={seed}",
            f"--day={day}",
            "--json",
            *more,
        ]

    def faults(self, faults: Mapping[str, Any]) -> None:
        """Use these faults from now on."""
        self.faults_file.write_text(json.dumps(faults), encoding="utf-8")
        self._district.append(f"--faults={self.faults_file}")

    def grow(self) -> None:
        """Write assets and truth."""
        subprocess.run(
            [sys.executable, *self._district, f"--assets={self.assets}", f"--truth={self.truth}"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environment,
        )

    def connect(self, address: str) -> dict[str, Any]:
        """Dial in; what faults were planned for whom."""
        self.launch([*self._district, f"--connect={address}"])
        return dict(self.line("planned")["faults"])

    def end(self) -> dict[str, int]:
        """Stop it; which faults fired, and how often."""
        assert self._process is not None
        self._process.terminate()
        said = self.line("end", STOP_SECONDS)
        self.stop()
        return dict(said["counts"])


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def until(true: Any, seconds: float, what: str) -> None:
    """Wait until `true()` is; AssertionError naming `what` where it is not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
