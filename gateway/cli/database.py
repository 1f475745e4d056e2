"""The database of a command that works without the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.cli.invocation import Invocation
from gateway.errors import InputError
from gateway.service import database_of
from gateway.storage.database import Database


@asynccontextmanager
async def database_for(invocation: Invocation, *, writing: bool = False) -> AsyncIterator[Database]:
    """The database of this call, its schema brought up to date where it is ours or we write.

    InputError where only reading was wanted and there is nothing to read yet.
    """
    embedded = invocation.settings.database.url is None
    if embedded and not writing and not invocation.state.database.exists():
        raise InputError(
            f"there is no database in {invocation.state.folder} yet 尚无数据库: import assets, run"
            " `lingdian serve` or `lingdian demo`, or name another folder with --state"
        )
    invocation.state.create()
    async with database_of(invocation.settings, invocation.state) as database:
        if embedded or writing:
            await database.migrate()
        yield database
