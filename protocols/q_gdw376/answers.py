"""One answer put together from its frames by RSEQ, FIR and FIN.

The first frame repeats PSEQ, each further one adds 1 modulo 16. Frames may come out of order or twice. A
captured terminal marks single frames FIR 0 FIN 1: with nothing collected such a frame is whole. A repeated
request may be answered in other words: with its first frame the answer begins anew.
"""

from __future__ import annotations

from enum import Enum

from protocols.q_gdw376.frame import Frame

# 64 frames of 1 KB are an archive of more than 2040 meters: no answer asked for here is longer.
MOST_FRAMES = 64
# Every frame that is taken starts the wait anew, so none may be taken for ever.
MOST_BEGINNINGS = 8
# Of sixteen numbers, those nearer ahead are taken for frames to come, the others for frames had already.
_WINDOW = 8


class Step(Enum):
    """What a frame did to the answer."""

    MORE = "taken; further frames are due"
    WHOLE = "taken; the answer is whole"
    AGAIN = "a frame that was here already"
    STRANGE = "none of this answer's numbers"


class Answer:
    """The frames of one answer to PSEQ `pseq`."""

    def __init__(self, pseq: int) -> None:
        self._pseq = pseq
        self._frames: list[Frame] = []
        self._ahead: dict[int, Frame] = {}
        self._begun = 1

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What has come so far, in order; frames with a gap before them are at the end."""
        return (*self._frames, *(self._ahead[place] for place in sorted(self._ahead)))

    @property
    def whole_frames(self) -> tuple[Frame, ...]:
        """The frames without a gap from the first: the whole answer once `add` has said WHOLE."""
        return tuple(self._frames)

    @property
    def left_over(self) -> tuple[Frame, ...]:
        """Frames that do not belong to the answer once it is whole."""
        return tuple(self._ahead.values())

    def begins_with(self, frame: Frame) -> bool:
        """Whether `frame` has the number of the first frame, and none is there yet."""
        return not self._frames and frame.pseq == self._pseq

    def add(self, frame: Frame) -> Step | str:
        """Take a frame: what it did, or the reason why FIR and FIN contradict its number."""
        count = len(self._frames)
        distance = (frame.pseq - self._pseq - count) % 16
        if frame.fir and frame.pseq == self._pseq and count and not _same(frame, self._frames[0]):
            if self._begun >= MOST_BEGINNINGS:
                return f"an answer that began {MOST_BEGINNINGS} times"
            self._begun += 1
            self._frames = [frame]
            self._ahead.clear()
            return Step.WHOLE if frame.fin else Step.MORE
        if distance >= _WINDOW:
            if count < 16 - distance:
                return Step.STRANGE
            return _again(frame, self._frames[count + distance - 16])
        if count + distance >= MOST_FRAMES:
            return f"an answer of more than {MOST_FRAMES} frames"
        if distance:
            if frame.fir:
                return Step.STRANGE
            if (had := self._ahead.get(count + distance)) is not None:
                return _again(frame, had)
            self._ahead[count + distance] = frame
            return Step.MORE
        if count and frame.fir:
            return "FIR in a frame that is not the first"
        if not count and not frame.fir and (self._ahead or not frame.fin):
            return "the first frame lacks FIR"
        self._frames.append(frame)
        while not self._frames[-1].fin and len(self._frames) in self._ahead:
            self._frames.append(self._ahead.pop(len(self._frames)))
        return Step.WHOLE if self._frames[-1].fin else Step.MORE


def _same(frame: Frame, had: Frame) -> bool:
    """Whether they say the same; counters and labels may have moved on between two tries."""
    return (frame.fir, frame.fin, frame.body) == (had.fir, had.fin, had.body)


def _again(frame: Frame, had: Frame) -> Step | str:
    return Step.AGAIN if _same(frame, had) else "another frame with a number that was here already"
