"""A terminal's channel held for a whole sequence of exchanges, so that nothing is asked in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.errors import LinkClosed

if TYPE_CHECKING:
    import asyncio

    from gateway.session.channel import Urgency
    from gateway.session.conversation import Conversation, Outcome, Unsent
    from protocols.q_gdw376.messages import Request


class Hold:
    """The channel, while it is ours. Made by `held`. Its exchanges are not set aside for others, and the link
    repeats none of them: a sequence that controls something is begun anew or not at all."""

    def __init__(self, conversation: Conversation, login: int, urgency: Urgency) -> None:
        self._conversation = conversation
        self._login = login
        self._urgency = urgency

    @property
    def ended(self) -> bool:
        """The link has ended, or another login has the terminal."""
        return self._conversation.ended or self._login != self._conversation.login

    @property
    def unsent(self) -> int:
        """Bytes that others have handed to the link and that have not left yet."""
        return self._conversation.link.unsent

    async def exchange(self, request: Request, *, reply_timeout: float, only_reads: bool = False) -> Outcome:
        """Ask, and wait for what comes of it. only_reads: it may be asked again after a damaged answer.
        Raises LinkClosed."""
        if self.ended:
            raise LinkClosed("the login has ended")
        return await self._conversation.ask(request, self._urgency, reply_timeout, only_reads)

    def hand_over(
        self, request: Request, last_check: Callable[[], bool], *, reply_timeout: float
    ) -> asyncio.Future[Outcome] | Unsent:
        """Have a request leave before this returns; see `Conversation.hand_over`."""
        return self._conversation.hand_over(
            request, self._urgency, reply_timeout, lambda: not self.ended and last_check()
        )


@asynccontextmanager
async def held(conversation: Conversation, login: int, urgency: Urgency) -> AsyncIterator[Hold]:
    """Have the channel in the block. Raises LinkClosed where that login ends before it is ours, InputError
    where too many wait."""
    hold = Hold(conversation, login, urgency)
    if hold.ended:
        raise LinkClosed(f"{conversation.link.peer} is gone")
    await conversation.take(urgency)
    try:
        if hold.ended:
            raise LinkClosed(f"{conversation.link.peer} is gone")
        yield hold
    finally:
        conversation.give_back()
