"""One answer put together from its frames by RSEQ, FIR and FIN.

The first frame repeats PSEQ, each further one adds 1 modulo 16. Frames may come out of order or twice. A
captured terminal marks single frames FIR 0 FIN 1: with nothing collected such a frame is whole.
"""

from __future__ import annotations

from enum import Enum

from protocols.q_gdw376.frame import Frame

# 64 frames of 1 KB are an archive of more than 2040 meters: no answer asked for here is longer.
MOST_FRAMES = 64
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
        if frame.fir and frame.fin and frame.pseq == self._pseq and not (count and self._frames[0] == frame):
            # Also where a repeated request is answered in one frame after a first try that was lost in part.
            self._frames = [frame]
            return Step.WHOLE
        if distance >= _WINDOW:
            return Step.AGAIN if count >= 16 - distance else Step.STRANGE
        if count + distance >= MOST_FRAMES:
            return f"an answer of more than {MOST_FRAMES} frames"
        if distance:
            if frame.fir:
                return Step.STRANGE
            if count + distance in self._ahead:
                return Step.AGAIN
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
