"""What all sections of the settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` (`[::1]:7000` for IPv6) as its parts; port 0 takes a free one.

    Raises ValueError that says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    return host.strip("[]"), int(port)


def _checked_address(text: str) -> str:
    split_address(text)
    return text


Address = Annotated[str, AfterValidator(_checked_address)]


class Section(BaseModel):
    """Base of all sections: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
