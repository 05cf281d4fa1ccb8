"""Streams that wait for their keys' rates."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.access.rates import Bucket
from ingestor.caller import Caller
from ingestor.errors import Overloaded, TooFast, Unauthenticated, Unavailable
from ingestor.service.in_hand import InHand
from ingestor.service.pacing import Pacing


def caller(rate: float, loop: asyncio.AbstractEventLoop) -> Caller:
    return Caller("c", spend=Bucket(rate, "metrics", loop.time).take)


async def test_those_who_wait_together_are_let_in_one_by_one() -> None:
    """In the order in which they came, and each of them, though little is there at once."""
    pacing, key = Pacing(InHand()), caller(200.0, asyncio.get_running_loop())
    key.spend(200)
    done: list[int] = []

    async def stream(number: int) -> None:
        await pacing.spend(key, 20, 1)
        done.append(number)

    began_at = asyncio.get_running_loop().time()
    await asyncio.gather(*map(stream, range(5)))
    assert done == [0, 1, 2, 3, 4]
    assert asyncio.get_running_loop().time() - began_at >= 0.49


async def test_who_comes_later_does_not_overtake() -> None:
    """Not even with so little that the key would allow it now."""
    now_s = 0.0
    bucket = Bucket(100.0, "metrics", lambda: now_s)
    pacing, key = Pacing(InHand()), Caller("c", spend=bucket.take)
    bucket.take(100)
    first = asyncio.create_task(pacing.spend(key, 50, 1))
    await asyncio.sleep(0)
    now_s = 0.1
    second = asyncio.create_task(pacing.spend(key, 1, 1))
    await asyncio.sleep(0)
    assert not second.done()
    now_s = 10.0
    await asyncio.gather(first, second)


async def test_what_waits_is_bounded() -> None:
    """Who would be too much is told so, and room that is given back counts."""
    pacing, key = Pacing(InHand(100)), caller(1.0, asyncio.get_running_loop())
    key.spend(1)
    waits = asyncio.create_task(pacing.spend(key, 1, 60))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await pacing.spend(key, 1, 60)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    another = asyncio.create_task(pacing.spend(key, 1, 60))
    await asyncio.sleep(0)
    assert not another.done()
    pacing.close()
    with pytest.raises(Unavailable):
        await another


async def test_a_key_that_ends_is_not_waited_for() -> None:
    """Nor is what its streams have in hand taken."""
    bucket = Bucket(20.0, "metrics", asyncio.get_running_loop().time)
    bucket.take(20)
    ended = False

    def check() -> None:
        if ended:
            raise Unauthenticated("the key was revoked")

    pacing, key = Pacing(InHand()), Caller("c", check=check, spend=bucket.take)
    waits = asyncio.create_task(pacing.spend(key, 1, 1))
    await asyncio.sleep(0)
    ended = True
    with pytest.raises(Unauthenticated):
        await waits


async def test_a_key_that_allows_too_little_is_not_waited_for() -> None:
    """Its stream is told at once when to come again, and holds nothing meanwhile."""
    bucket = Bucket(0.05, "metrics", lambda: 0.0)
    in_hand = InHand(100)
    pacing, key = Pacing(in_hand), Caller("c", spend=bucket.take)
    bucket.take(1)
    with pytest.raises(TooFast) as refused:
        await asyncio.wait_for(pacing.spend(key, 1, 100), 5)
    assert refused.value.retry_after_s > 10
    with in_hand.held(100), pytest.raises(Overloaded), in_hand.held(1):
        pass


async def test_keys_do_not_wait_for_each_other() -> None:
    """Each has a line of its own; and who is cancelled at the head of one leaves it to the next."""
    now_s = 0.0
    buckets = [Bucket(100.0, "metrics", lambda: now_s) for _ in range(2)]
    slow, fast = (Caller(name, spend=bucket.take) for name, bucket in zip("ab", buckets, strict=True))
    pacing = Pacing(InHand())
    buckets[0].take(100)
    head, behind = (asyncio.create_task(pacing.spend(slow, 50, 1)) for _ in range(2))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await pacing.spend(fast, 100, 1)
        now_s = 0.5
        head.cancel()
        await behind
    assert head.cancelled()
