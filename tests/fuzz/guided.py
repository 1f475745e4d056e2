"""Coverage-guided search (atheris) for bytes that break something: one process for each family.

    python -m tests.fuzz.guided --seconds 3600

It goes on from tests/fuzz/corpus and writes back what reaches something new, made as small as it can be. An
input that breaks something is printed as hex, and the exit code is 1; `--input HEX` tries it again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

FAMILIES = ("dlt645", "qgdw376")
# Seconds that one input may take, and megabytes that a process may grow to.
_LONGEST_CASE_S = 10
_LARGEST_MB = 1500
LONGEST_INPUT = 600


class Search:
    """The search for one family in a folder of its own."""

    def __init__(self, family: str, folder: Path) -> None:
        from tests.fuzz.inputs import first_inputs, load
        from tests.fuzz.mutations import Family

        self.family = family
        self._found = folder / "found"
        self._kept = folder / "kept"
        self._broken = folder / "broken"
        self._log = folder / "log"
        for one in (self._found, self._kept, self._broken):
            one.mkdir(parents=True)
        # libFuzzer starts itself again by its first argument, so that must be a program.
        self._program = folder / "search"
        words = f'"{sys.executable}" -m tests.fuzz.guided --target {family} --program "$0" "$@"'
        self._program.write_text(f"#!/bin/sh\nexec {words}\n")
        self._program.chmod(0o755)
        inputs = [*load(Family(family)), *first_inputs(Family(family))]
        for number, told in enumerate(inputs):
            (self._found / f"first{number}").write_bytes(told[:LONGEST_INPUT])

    def start(self, seconds: int) -> subprocess.Popen[bytes]:
        """Begin to search."""
        return self._run([f"-max_total_time={seconds}", "-print_final_stats=1", str(self._found)])

    def keep(self) -> int:
        """Keep the smallest set of inputs that reaches as much; how many they are."""
        from tests.fuzz.inputs import load, save
        from tests.fuzz.mutations import Family

        code = self._run(["-merge=1", str(self._kept), str(self._found)]).wait()
        if code:
            raise SystemExit(f"{self.family}: merging ended with {code}\n{self._tail()}")
        save(Family(self.family), [path.read_bytes() for path in self._kept.iterdir()])
        return len(load(Family(self.family)))

    def outcome(self) -> str:
        """How many inputs were tried, what they reached, and the memory at the end."""
        log = self._log.read_text(errors="replace")
        tried = re.findall(r"number_of_executed_units: *(\d+)", log)
        memory = re.findall(r"peak_rss_mb: *(\d+)", log)
        reached = re.findall(r"cov: (\d+) ft: (\d+)", log) or [("?", "?")]
        return (
            f"{self.family}: {int(tried[-1]) if tried else 0:,} inputs, {reached[0][0]} places reached "
            f"at first and {reached[-1][0]} at last ({reached[-1][1]} features), "
            f"{memory[-1] if memory else '?'} MB at most"
        )

    def broken(self) -> list[str]:
        """Inputs that broke something, as hex, each with the end of the log."""
        return [f"{path.name}: {path.read_bytes().hex()}\n{self._tail()}" for path in self._broken.iterdir()]

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])

    def _run(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        limits = [
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={_LONGEST_CASE_S}",
            f"-rss_limit_mb={_LARGEST_MB}",
            f"-artifact_prefix={self._broken}/",
        ]
        with self._log.open("ab") as log:
            return subprocess.Popen([str(self._program), *limits, *arguments], stdout=log, stderr=log)


def search(seconds: int, say: Callable[[str], None] = print) -> int:
    """Search for so long in both families at once. 1 where something broke."""
    broke = 0
    with tempfile.TemporaryDirectory(prefix="lingdian-guided-") as name:
        searches = [Search(family, Path(name) / family) for family in FAMILIES]
        running = [one.start(seconds) for one in searches]
        codes = [process.wait() for process in running]
        for one, code in zip(searches, codes, strict=True):
            say(one.outcome())
            for told in one.broken():
                say(told)
            if code or one.broken():
                broke = 1
            else:
                say(f"{one.family}: {one.keep()} inputs kept")
    return broke


def be_target(family: str, program: str, arguments: list[str]) -> None:
    """Be the process that searches; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["protocols"]):
        from tests.fuzz.inputs import target
        from tests.fuzz.mutations import Family
    atheris.Setup([program, *arguments], target(Family(family)))
    atheris.Fuzz()


def try_again(told: str) -> None:
    """Try one input with both families."""
    from tests.fuzz.inputs import target
    from tests.fuzz.mutations import Family

    for family in Family:
        target(family)(bytes.fromhex(told))


def main() -> None:
    """Search; or be the process that searches (`--target`, with libFuzzer's own arguments behind it)."""
    parser = argparse.ArgumentParser(description="coverage-guided search for bytes that break something")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", help="try this input (hex) in both families, and nothing else")
    parser.add_argument("--target", choices=FAMILIES, help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    arguments, others = parser.parse_known_args()
    if arguments.input is not None:
        try_again(arguments.input)
    elif arguments.target is not None:
        be_target(arguments.target, arguments.program, others)
    else:
        sys.exit(search(arguments.seconds))


if __name__ == "__main__":
    main()
