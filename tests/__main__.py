"""All tests but the long ones, as `make test` runs them: `python -m tests`.

The end-to-end tests mostly wait for processes of their own; whatever does not measure time keeps a core busy
beside them. The rest of the gateway's tests follow alone: many of them measure how soon it answers.
What each run prints is printed whole, and the closing line adds them up. Other choices of tests are for
pytest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LAST = [f"tests/end_to_end/test_{name}.py" for name in ("transports", "survival")]
"""End-to-end tests that are left to whoever is done sooner, so that both end at about the same time."""
BESIDE = ["tests/end_to_end", *(f"--ignore={path}" for path in LAST)]
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
    *LAST,
]
ALONE = ["tests/gateway", *(f"--ignore={path}" for path in UNHURRIED)]

_CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


def _pytest(paths: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-m", "not long", *paths]


def _shown(paths: list[str]) -> tuple[int, str]:
    """Run these, shown as they come; the exit code, and what was shown."""
    shown: list[str] = []
    with subprocess.Popen(
        _pytest(paths), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            shown.append(line)
    return running.returncode, "".join(shown)


def closing(outputs: list[str]) -> str | None:
    """The closing line of several runs together; None where one of them has none."""
    told = [_CLOSING.findall(output)[-1:] for output in outputs]
    if not all(told):
        return None
    passed, failed, skipped = (sum(int(one[0][place]) for one in told) for place in range(3))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def main() -> int:
    """Run all; 0 where all did well."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as apart:
        beside = subprocess.Popen(_pytest(BESIDE), stdout=apart, stderr=subprocess.STDOUT, text=True)
        try:
            first, shown_first = _shown(FIRST)
            beside.wait()
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
        apart.seek(0)
        said = apart.read()
    print(f"\nend to end, run beside these:\n{said}", flush=True)
    alone, shown_alone = _shown(ALONE)
    print(closing([shown_first, said, shown_alone]) or "the tests did not come to their end")
    return 1 if first or beside.returncode or alone else 0


if __name__ == "__main__":
    sys.exit(main())
