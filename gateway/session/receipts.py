"""When what a link has brought is settled: once all that came in it is safe, in whatever order that is.

Only links whose carrier waits for an acknowledgement have receipts; the others pay nothing for them. Nothing
waits in here: whoever files a frame settles what it came in, so what is unsettled is bounded by those who
file, and by the link itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.transports.link import Settle, settled


class Receipt:
    """Of the bytes of one `Link.read`. Made by `Receipts`."""

    __slots__ = ("_left", "_link", "_settle", "size")

    def __init__(self, link: Receipts, settle: Settle, size: int) -> None:
        self.size = size
        self._link = link
        self._settle = settle
        self._left = 1

    def begun(self) -> None:
        """Something of it is being filed: it is not settled before one more `done`."""
        self._left += 1

    async def done(self) -> None:
        """That is safe. The last one settles it, unless the link has ended meanwhile."""
        self._left -= 1
        if not self._left and not self._link.ended:
            await self._settle()


def begin(receipts: Sequence[Receipt]) -> None:
    """A frame that came in these is being filed. Where `finish` never follows, they are never settled, and
    the carrier brings them again."""
    for receipt in receipts:
        receipt.begun()


async def finish(receipts: Sequence[Receipt]) -> None:
    """The frame is safe."""
    for receipt in receipts:
        await receipt.done()


class Receipts:
    """Those of one link whose bytes are being handled."""

    def __init__(self) -> None:
        self.ended = False
        """the link has: nothing is settled any more"""
        self.open: list[Receipt] = []

    def came(self, size: int, settle: Settle) -> None:
        """So many bytes have been read."""
        if settle is not settled:
            self.open.append(Receipt(self, settle, size))

    @property
    def current(self) -> tuple[Receipt, ...]:
        """Of the bytes in which a frame that is being handled may have come; () where nobody waits."""
        return tuple(self.open)

    async def handled(self, held: int) -> None:
        """What was read has been handled, but for its last `held` bytes: a frame begins with them."""
        kept = 0
        while kept < len(self.open) and held > 0:
            kept += 1
            held -= self.open[-kept].size
        over = self.open[: len(self.open) - kept]
        del self.open[: len(over)]
        await finish(over)
