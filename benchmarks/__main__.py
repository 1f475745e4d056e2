"""`make bench`: all measurements, or those named: `make bench ARGS="decode sweep"`."""

from __future__ import annotations

import sys

from benchmarks import decode, night, relay, sweep, terminals

PARTS = {
    "decode": decode.run,
    "sweep": sweep.run,
    "night": night.run,
    "relay": relay.run,
    "terminals": terminals.run,
}


def main() -> None:
    """Run the parts that are named, all of them where none is."""
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"no measurement {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    for name in wanted:
        PARTS[name]()


if __name__ == "__main__":
    main()
