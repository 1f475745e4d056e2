"""All tests but the long ones, in two processes: `python -m tests`, which `make test` runs.

The end-to-end tests mostly wait for processes of their own; beside them the others keep a core busy. What
each prints is printed whole, and the closing line adds the two up. Other choices of tests are for pytest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

APART = "end_to_end"
"""The marker of the tests that run beside the others."""

_CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


def _pytest(choice: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-m", f"not long and {choice}"]


def closing(outputs: list[str]) -> str | None:
    """The closing line of several runs together; None where one of them has none."""
    told = [_CLOSING.findall(output)[-1:] for output in outputs]
    if not all(told):
        return None
    passed, failed, skipped = (sum(int(one[0][place]) for one in told) for place in range(3))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def main() -> int:
    """Run both; 0 where both did well."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as apart:
        beside = subprocess.Popen(_pytest(APART), stdout=apart, stderr=subprocess.STDOUT, text=True)
        try:
            shown: list[str] = []
            with subprocess.Popen(
                _pytest(f"not {APART}"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as others:
                assert others.stdout is not None
                for line in others.stdout:
                    sys.stdout.write(line)
                    sys.stdout.flush()
                    shown.append(line)
            beside.wait()
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
        apart.seek(0)
        said = apart.read()
    print(f"\nend to end, run beside the others:\n{said}")
    print(closing(["".join(shown), said]) or "the tests did not come to their end")
    return 1 if others.returncode or beside.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
