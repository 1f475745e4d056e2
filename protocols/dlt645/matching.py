"""Whether what a meter said is the answer to what was asked: by function, and by what the answer echoes.

Addresses are compared by the connection, which alone knows wildcards that a first answer has resolved.
"""

from __future__ import annotations

from protocols.dlt645.commands import (
    ChangePassword,
    ChangeSpeed,
    Command,
    Done,
    OutputReply,
    PasswordReply,
    SelectOutput,
    SpeedReply,
)
from protocols.dlt645.control_messages import (
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityReply,
    SecurityRequest,
)
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAddressRequest,
    ReadAgainReply,
    ReadAgainRequest,
    ReadReply,
    ReadRequest,
    Request,
)


def answers(asked: Request, function: int, message: Message) -> bool:
    """Whether `message` answers `asked`, a request of that function (D4..D0 of C).

    A confirmation of another speed, password or output than the one asked for is no answer.
    """
    match message:
        case ReadReply():
            return isinstance(asked, ReadRequest) and message.di == asked.di
        case FollowUpReply():
            wanted = isinstance(asked, FollowUpRequest) and (asked.di, asked.sequence)
            return wanted == (message.di, message.sequence)
        case ReadAgainReply():
            return isinstance(asked, ReadAgainRequest)
        case AddressReply():
            return isinstance(asked, ReadAddressRequest)
        case ErrorReply():
            return message.function == function
        case Done():
            return isinstance(asked, Command) and message.function == function
        case SpeedReply():
            return isinstance(asked, ChangeSpeed) and message.word == asked.word
        case PasswordReply():
            return isinstance(asked, ChangePassword) and message.new == asked.new
        case OutputReply():
            return isinstance(asked, SelectOutput) and message.output == asked.output
        case RelayReply():
            return isinstance(asked, RelayCommand | SealedCommand)
        case SecurityReply():
            return isinstance(asked, SecurityRequest) and message.di == asked.di
    return False


def out_of_order(asked: Request, message: Message, repeated: bool) -> str | None:
    """Why a part of the very answer being fetched cannot be the part asked for.

    None where it can, or is no part of it. repeated: whether its bytes are those of the part before.
    """
    if not isinstance(asked, FollowUpRequest) or not isinstance(message, ReadReply | FollowUpReply):
        return None
    if (message.di, message.address) != (asked.di, asked.address):
        return None
    if isinstance(message, ReadReply):
        return "the first part came again"
    if message.sequence != asked.sequence:
        return f"part {message.sequence} came where {asked.sequence} was asked for"
    if not message.sequence and repeated:
        # 1997 counts none: nobody can tell a part sent twice from the next one that says the same.
        return "the same part came again"
    return None
