import asyncio

import pytest

from services.gateway.inbox import Inbox


async def test_what_was_put_comes_out_in_order_to_the_end() -> None:
    inbox = Inbox[bytes](100)
    for data in (b"one", b"two", b"three"):
        await inbox.put(data)
    inbox.end()
    await inbox.put(b"late")
    assert [data async for data in inbox.blocks()] == [b"one", b"two", b"three"]


async def test_a_full_inbox_makes_its_writer_wait() -> None:
    inbox = Inbox[bytes](10)
    await inbox.put(bytes(10))
    waiting = asyncio.create_task(inbox.put(b"more"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    blocks = inbox.blocks()
    assert await anext(blocks) == bytes(10)
    await asyncio.wait_for(waiting, 1)
    assert await anext(blocks) == b"more"


async def test_a_reader_waits_for_what_comes_and_for_the_end() -> None:
    inbox = Inbox[bytes](10)
    read = asyncio.create_task(anext(inbox.blocks(), None))
    await asyncio.sleep(0)  # let it begin to wait
    await inbox.put(b"here")
    assert await read == b"here"
    inbox.end()
    assert await anext(inbox.blocks(), None) is None
