"""Frames told to a person one after the other, each answer with the request that it belongs to."""

from __future__ import annotations

from rich.text import Text

from gateway.captures.capture import Capture
from gateway.cli.painting import Language, painted, screen
from protocols.lens.conversation import MOST_WAITING, Conversation, Turn
from protocols.lens.places import Place, find
from protocols.lens.tree import Node, tree


class Listing:
    """What `lingdian decode` shows. lang: en, zh or both; brief: one line a frame and no fields."""

    def __init__(self, lang: str, brief: bool) -> None:
        self._language = Language(lang)
        self._brief = brief
        self._console = screen()
        self._conversation = Conversation()
        self._asked_at: dict[int, float] = {}

    def add(self, capture: Capture) -> bool:
        """Show one capture; whether it held a frame."""
        say = self._language.choose
        found = find(capture.data)
        error = capture.error or found.error
        if not self._brief or error:
            self._print(Text(_shortened(capture.text), style="dim"))
        for place in found.frames if capture.error is None else ():
            self._frame(capture, place)
        if found.discarded and capture.error is None and not self._brief:
            words = say("bytes belong to no frame", "无效字节")
            self._print(Text(f"  {found.discarded} {words}", style="yellow"))
        if error:
            where = f"{capture.source}: " if capture.source else ""
            self._print(Text(f"  {where}{error}", style="red"))
        return not error

    def end(self) -> None:
        """What the conversation came to, where there was one."""
        said = self._conversation
        if said.count < 2:
            return
        say = self._language.choose
        text = say(
            f"{said.count} frames, {said.exchanges} answered", f"{said.count}帧，{said.exchanges}次应答"
        )
        if silent := said.unanswered:
            numbers = " ".join(f"#{number}" for number in silent[:20]) + (" …" if len(silent) > 20 else "")
            text += "; " + say(f"without an answer: {numbers}", f"未见应答：{numbers}")
        self._print(Text(text, style="bold"))

    def _frame(self, capture: Capture, place: Place) -> None:
        turn = self._conversation.add(capture.data, place)
        said = self._headline(capture, turn)
        if self._brief:
            self._print(said)
            return
        root = tree(capture.data, place)
        head = Text(f"  {root.name} at byte {place.start}", style="bold")
        self._print(head.append("  ").append(said))
        self._console.print(painted(_with_joined(root, turn), self._language))

    def _headline(self, capture: Capture, turn: Turn) -> Text:
        """Number, time, ends, what it is, and beside it what it answers."""
        say = self._language.choose
        text = Text(f"#{turn.number} ", style="bold")
        for words in (capture.at, capture.source):
            if words:
                text.append(f"{words}  ", style="dim")
        text.append(say(turn.digest, turn.digest_zh), style="not bold")
        if turn.answers is None:
            if capture.seconds is not None:
                self._asked_at[turn.number] = capture.seconds
                if len(self._asked_at) > 2 * MOST_WAITING:
                    del self._asked_at[next(iter(self._asked_at))]
            return text
        text.append(f"  ← #{turn.answers} ", style="green")
        asked = self._asked_at.get(turn.answers)
        if asked is not None and capture.seconds is not None:
            text.append(f"{capture.seconds - asked:+.3f} s ", style="dim")
        return text.append(say(turn.asked, turn.asked_zh), style="green not bold")

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _with_joined(root: Node, turn: Turn) -> Node:
    if not turn.joined:
        return root
    whole = Node("item, all parts joined", "数据项（各帧合并）", None, b"", children=turn.joined)
    return Node(root.name, root.name_zh, root.offset, root.raw, root.value, children=(*root.children, whole))


def _shortened(text: str) -> str:
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)})"
