"""Who makes work and asks for nothing is sent away with ENHANCE_YOUR_CALM; who asks for much is not."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ingestor.transport.grpc.floods import ANSWER, BURST, LOST_TASK, REFILL_A_SECOND, Budget
from tests.transport.grpc.kit import framed, serving
from tests.transport.grpc.raw_h2 import LOG_METRIC, RawClient


def test_what_costs_more_leaves_less_and_what_was_earned_is_not_kept() -> None:
    """Each thing has its price; a second gives back so much, up to the burst and no further."""
    budget = Budget()
    budget.spend(LOST_TASK)
    budget.spend()
    budget.earn()
    assert budget.left == BURST - LOST_TASK - 1 + ANSWER
    budget.spend(2 * BURST)
    before = budget.left
    budget.refill(1.5)
    assert budget.left == before + 1.5 * REFILL_A_SECOND
    budget.refill(1_000)
    assert budget.left == BURST


async def echo(body: bytes) -> bytes:
    return body


async def forever(body: bytes) -> bytes:
    await asyncio.Event().wait()
    return body


def prepared(client: RawClient, number: int, path: str = LOG_METRIC) -> bytes:
    """So many calls that are begun and given up."""
    sent = bytearray()
    for _ in range(number):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, [(":path", path), *HEADERS])
        client.h2.reset_stream(stream, 8)
        sent += client.h2.data_to_send()
    return bytes(sent)


HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


async def is_sent_away(client: RawClient) -> None:
    """The client reads why, and the connection ends in order: no reset of the kernel's overtakes the reason."""
    await client.until(lambda: client.closed)
    assert client.goaway_codes == [ErrorCodes.ENHANCE_YOUR_CALM]
    assert client.broken is None


@pytest.mark.parametrize("path", [LOG_METRIC, "/unknown"])
async def test_rapid_resets(path: str) -> None:
    """CVE-2023-44487: calls that are begun only to be given up."""
    async with serving(forever) as client:
        await client.send_bytes(prepared(client, 2 * BURST, path))
        await is_sent_away(client)


async def test_calls_that_are_answered_pay_for_those_that_are_given_up() -> None:
    """A client that gives up every second call for long is none of these."""
    async with serving(echo) as client:
        for _ in range(BURST + 100):
            await client.send_bytes(prepared(client, 1))
            await client.answer(await client.send(framed(b"x")))
        assert client.goaway is None


@pytest.mark.parametrize("how", ["window", "data", "trailers"])
async def test_resets_that_we_are_made_to_send(how: str) -> None:
    """CVE-2025-8671: the client breaks a rule on each of its streams, so that the reset is ours."""
    async with serving(forever) as client:
        for _ in range(BURST):
            if client.closed or client.goaway is not None:
                break
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS])
            client.h2.send_data(stream, framed(b"x"), end_stream=True)
            await client.flush()
            broken: Frame = WindowUpdateFrame(stream, 0)
            if how == "window":
                broken = WindowUpdateFrame(stream, 2**31 - 1)
            elif how == "data":
                broken = DataFrame(stream, b"behind the end")
            else:
                broken = HeadersFrame(stream, b"\0\1a\1b", flags=["END_HEADERS", "END_STREAM"])
            try:
                await client.send_frame(broken)
            except ConnectionError:
                break
            await asyncio.sleep(0)
        await client.until(lambda: client.closed)
        assert set(client.goaway_codes) <= {ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.STREAM_CLOSED}
        assert client.goaway_codes


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        PingFrame(0, b"12345678", flags=["ACK"]),
        SettingsFrame(0, {4: 65_535}),
        PriorityFrame(1, depends_on=0, stream_weight=7),
        WindowUpdateFrame(0, 1),
        DataFrame(1, b""),
        DataFrame(1, b"x"),
        RstStreamFrame(1, 8),
    ],
    ids=["ping", "ack", "settings", "priority", "window", "empty", "tiny", "reset"],
)
async def test_frames_that_ask_for_nothing(frame: Frame) -> None:
    """Each costs its sender as much as any other, whatever it is."""
    async with serving(echo) as client:
        await client.send(framed(bytes(10_000), length=20_000), end=False)
        with_room = frame.serialize() * (2 * BURST)
        await client.send_bytes(with_room)
        await is_sent_away(client)


async def test_a_header_block_without_end() -> None:
    """CVE-2024-27316: CONTINUATION after CONTINUATION, empty or full."""
    for piece in (b"", bytes(16_384)):
        async with serving(echo) as client:
            stream = client.h2.get_next_available_stream_id()
            frames = [HeadersFrame(stream, b"\0\1a\1b"), *([ContinuationFrame(stream, piece)] * 200)]
            await client.send_frame(*frames)
            await client.until(lambda: client.closed)
            assert client.goaway_codes in ([ErrorCodes.ENHANCE_YOUR_CALM], [ErrorCodes.PROTOCOL_ERROR])


async def test_trailers_may_come_in_pieces() -> None:
    """Of a call in the lane as of any other; the next block means what it says."""
    async with serving(echo) as client:
        stream = await client.send(framed(b"trailed"), end=False)
        pieces = [ContinuationFrame(stream, b"\1"), ContinuationFrame(stream, b"1", flags=["END_HEADERS"])]
        await client.send_frame(HeadersFrame(stream, b"\0\10checksum", flags=["END_STREAM"]), *pieces)
        assert (await client.answer(stream)).data == framed(b"trailed")
        assert (await client.answer(await client.send(framed(b"next")))).data == framed(b"next")


async def test_trailers_in_pieces_of_a_call_that_was_given_up_meanwhile() -> None:
    """They are read for the compression's sake, and mean nothing."""
    async with serving(echo) as client:
        await client.answer(await client.send(framed(b"first")))
        stream = await client.open_with({"grpc-timeout": "300m"})
        await client.send_frame(HeadersFrame(stream, b"\0\10checksum", flags=["END_STREAM"]))
        await client.answer(stream)
        await client.send_frame(ContinuationFrame(stream, b"\0011", flags=["END_HEADERS"]))
        assert (await client.answer(await client.send(framed(b"next")))).data == framed(b"next")


async def test_an_interrupted_header_block_ends_the_connection() -> None:
    """PROTOCOL_ERROR, as RFC 9113 has it (6.10)."""
    async with serving(echo) as client:
        stream = await client.send(framed(b"x"), end=False)
        await client.send_frame(HeadersFrame(stream, b"\0\1a"), PingFrame(0, b"12345678"))
        await client.until(lambda: client.closed)
        assert client.goaway_codes == [ErrorCodes.PROTOCOL_ERROR]


@pytest.mark.parametrize("pieces", [1, 4])
async def test_large_headers_are_refused_and_the_connection_goes_on(pieces: int) -> None:
    """RESOURCE_EXHAUSTED for their call alone; beyond what is read of a block the connection ends."""
    async with serving(echo) as client:
        other = await client.send(framed(b"other"), end=False)
        for size in (15_000, 30_000):
            headers = {f"h-{number}": "x" * size for number in range(4)}
            answer = await client.answer(await client.send(framed(b"x"), headers=headers))
            assert answer.headers["grpc-status"] == ("0" if size == 15_000 else "8")
        await client.send_more(other)
        assert (await client.answer(other)).data == framed(b"other")
        await client.send(framed(b"x"), headers={f"h-{number}": "x" * 60_000 for number in range(pieces)})
        if pieces > 1:
            await client.until(lambda: client.closed)
            assert client.goaway_codes == [ErrorCodes.ENHANCE_YOUR_CALM]
