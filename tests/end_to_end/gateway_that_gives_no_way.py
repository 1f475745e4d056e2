"""`python -m tests.end_to_end.gateway_that_gives_no_way` is `lingdian` in which trips do not wait for
closes, and eight requests for them are worked on at a time.

It is put in from here: the program has no switch for it.
"""

from __future__ import annotations

from gateway.api import parts
from gateway.cli import main
from gateway.control.right_of_way import RightOfWay

if __name__ == "__main__":
    parts.TRIPS_AT_A_TIME = 8  # type: ignore[misc]  # Final for everybody else
    setattr(RightOfWay, "_hold", lambda self: None)  # noqa: B010  # mypy: a method is not assigned to
    main()
