"""Who is told to end in the turn in which a library has its answer ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.cancellation import cancellable


async def swallowing(done: asyncio.Future[str]) -> str:
    """`asyncio.wait_for` of Python 3.11, where what it waits for is done as it is cancelled."""
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        return done.result()


async def test_a_cancellation_that_the_library_swallows_is_heard() -> None:
    call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(cancellable(swallowing(call)))
    await asyncio.sleep(0)
    task.cancel()
    call.set_result("answer")
    await asyncio.wait([task])
    assert task.cancelled()


async def test_it_is_heard_too_where_the_answer_is_an_error() -> None:
    """Whoever tries again after an error would try for ever."""
    call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(cancellable(swallowing(call)))
    await asyncio.sleep(0)
    task.cancel()
    call.set_exception(OSError("the broker has gone"))
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_error_is_raised_where_nobody_told_it_to_end() -> None:
    call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    call.set_exception(OSError("the broker has gone"))
    with pytest.raises(OSError, match="has gone"):
        await cancellable(swallowing(call))


async def test_what_nobody_waits_for_any_more_is_given_back() -> None:
    call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    given_back = []

    async def give_back(result: str) -> None:
        await asyncio.sleep(0)
        given_back.append(result)

    task = asyncio.ensure_future(cancellable(swallowing(call), undo=give_back))
    await asyncio.sleep(0)
    task.cancel()
    call.set_result("answer")
    await asyncio.wait([task])
    assert (task.cancelled(), given_back) == (True, ["answer"])


async def test_the_answer_is_given_where_nobody_told_it_to_end() -> None:
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    done.set_result("answer")
    assert await cancellable(swallowing(done)) == "answer"


async def test_who_was_told_before_may_still_wind_up() -> None:
    """In its `finally` a task asks the broker and the database as before."""

    async def winding_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await cancellable(asyncio.sleep(0, "wound up"))
        raise AssertionError("was not told")

    task = asyncio.ensure_future(winding_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "wound up"


async def test_the_time_of_a_timeout_counts_as_being_told() -> None:
    """So the timeout is raised, and not swallowed."""
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, done.set_result, "answer")

    async def late() -> str:
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            return await done

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cancellable(late())
