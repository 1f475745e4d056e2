"""All tests but the long ones, as `make test` runs them: `python -m tests`.

The end-to-end tests mostly wait for processes of their own; whatever does not measure time keeps a core busy
beside them, and whichever of the two is done sooner takes up what is left. The rest of the gateway's tests
follow alone: many of them measure how soon it answers.
What each run prints is printed whole, and the closing line adds them up. Other choices of tests are for
pytest.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

LEFT = [f"tests/end_to_end/test_{name}.py" for name in ("survival", "transports")]
"""End-to-end tests for whoever is done sooner, the longest first."""
BESIDE = ["tests/end_to_end", *(f"--ignore={path}" for path in LEFT)]
UNHURRIED = ["tests/gateway/api", "tests/gateway/control", "tests/gateway/storage"]
"""Parts of the gateway's tests that do not mind what runs beside them."""
FIRST = [
    *(
        str(path)
        for path in sorted(Path("tests").iterdir())
        if path.name.startswith("test_")
        or ((path / "__init__.py").exists() and path.name not in ("end_to_end", "gateway"))
    ),
    *UNHURRIED,
]
ALONE = ["tests/gateway", *(f"--ignore={path}" for path in UNHURRIED)]

_CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one pytest: its exit code, and all that it printed."""

    code: int
    said: str


async def _pytest(paths: list[str], show: Callable[[bytes], object]) -> Ran:
    """Run these; `show` is given what they print as it comes."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-m", "not long", *paths),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert running.stdout is not None
    said = bytearray()
    try:
        while piece := await running.stdout.read(4096):
            show(piece)
            said += piece
    finally:
        if running.returncode is None and not running.stdout.at_eof():
            running.terminate()
        code = await running.wait()
    return Ran(code, said.decode(errors="replace"))


async def _shown(paths: list[str]) -> Ran:
    """Run these, shown as they come."""

    def show(piece: bytes) -> None:
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()

    return await _pytest(paths, show)


async def _kept(paths: list[str]) -> Ran:
    """Run these, to be shown later."""
    return await _pytest(paths, lambda piece: None)


async def taken_up(
    run: Callable[[list[str]], Awaitable[Ran]], first: list[str], left: deque[str]
) -> list[Ran]:
    """Run `first`, and then one after the other of those that are left, as long as there are any."""
    ran = [await run(first)]
    while left:
        ran.append(await run([left.popleft()]))
    return ran


def closing(outputs: list[str]) -> str | None:
    """The closing line of several runs together; None where one of them has none."""
    told = [_CLOSING.findall(output)[-1:] for output in outputs]
    if not all(told):
        return None
    passed, failed, skipped = (sum(int(one[0][place]) for one in told) for place in range(3))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


async def main() -> int:
    """Run all; 0 where all did well."""
    left = deque(LEFT)
    async with asyncio.TaskGroup() as both:
        first = both.create_task(taken_up(_shown, FIRST, left))
        beside = both.create_task(taken_up(_kept, BESIDE, left))
    for one in beside.result():
        print(f"\nrun beside these:\n{one.said}", flush=True)
    ran = [*first.result(), *beside.result(), await _shown(ALONE)]
    print(closing([one.said for one in ran]) or "the tests did not come to their end")
    return 1 if any(one.code for one in ran) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
