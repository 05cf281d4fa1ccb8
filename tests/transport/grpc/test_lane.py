"""What the lane has to get right by itself: HTTP/2's windows, the compression state, and frames in odd shapes.

The other tests here hold it to the same answers as grpclib's own way; most of these run both ways, too.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

from ingestor.transport.bounds import Bounds
from ingestor.transport.share import Share
from tests.transport.grpc.kit import GOOD, SERVICE, connected, framed, listening, serving, unary_rpc
from tests.transport.grpc.raw_h2 import LOG_METRIC, Answer

lane_only = pytest.mark.parametrize("lane", ["true"], indirect=True)


async def echo(body: bytes) -> bytes:
    return body


def test_the_lane_is_for_these_releases() -> None:
    """ingestor/transport/grpc/lane keeps h2's and hpack's accounts: read it again before raising the pins."""
    assert version("h2").startswith("4.4.")
    assert version("hpack").startswith("4.2.")


async def test_an_answer_waits_for_the_client_s_windows() -> None:
    """A large one goes out as the client allows, others overtake it, and all of it arrives."""
    answer = bytes(range(256)) * 800  # 200 KB, where 64 KB may be sent unasked

    async def method(body: bytes) -> bytes:
        return answer if body else b"small"

    async with serving(method) as client:
        large = await client.send(framed(b"x"))
        await client.until(lambda: len(client.answers[large].data) == 65_535)
        client.h2.increment_flow_control_window(500_000)
        await client.flush()
        small = await client.answer(await client.send(framed(b"")))
        assert small.data == framed(b"small")
        assert not client.answers[large].ended
        for _ in range(4):
            client.h2.increment_flow_control_window(40_000, large)
            await client.flush()
        assert (await client.answer(large)).data == framed(answer)
        assert client.answers[large].headers["grpc-status"] == "0"


async def test_a_larger_first_window_lets_a_waiting_answer_go_on() -> None:
    """SETTINGS that come later count for streams that are open (RFC 9113, 6.9.2)."""

    async def method(body: bytes) -> bytes:
        return bytes(100_000)

    async with serving(method) as client:
        client.h2.increment_flow_control_window(500_000)
        call = await client.send(framed(b""))
        await client.until(lambda: len(client.answers[call].data) == 65_535)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 200_000})
        await client.flush()
        assert len((await client.answer(call)).data) == 100_005


async def test_a_client_that_reads_late_gets_every_answer() -> None:
    """More than the sockets hold, so that the server has to wait in the middle of answers."""

    async def method(body: bytes) -> bytes:
        return bytes(200_000)

    async with serving(method) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
        client.h2.increment_flow_control_window(2**30)
        await client.flush()
        client.reading.clear()
        calls = [await client.send(framed(b"")) for _ in range(60)]
        await asyncio.sleep(0.2)
        client.reading.set()
        for call in calls:
            assert len((await client.answer(call)).data) == 200_005


async def test_more_streams_than_allowed_are_refused_one_by_one() -> None:
    """REFUSED_STREAM for the 101st, which clients send again; the connection and its calls go on."""
    go_on = asyncio.Event()

    async def method(body: bytes) -> bytes:
        await go_on.wait()
        return body

    async with serving(method) as client:
        calls = [await client.send(framed(b"x")) for _ in range(100)]
        client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 200
        client.h2.remote_settings.acknowledge()
        late = await client.send(framed(b"x"))
        assert (await client.answer(late)).reset == ErrorCodes.REFUSED_STREAM
        go_on.set()
        for call in calls:
            assert (await client.answer(call)).data == framed(b"x")
        assert (await client.answer(await client.send(framed(b"y")))).data == framed(b"y")


@pytest.mark.parametrize("size", [0, 64, 4096])
async def test_a_change_of_the_client_s_table_size_is_told_in_the_next_headers(size: int) -> None:
    """Without it the client takes the connection's compression state for broken (RFC 7541, 4.2)."""
    async with serving(echo) as client:
        await client.answer(await client.send(framed(b"1")))
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
        await client.flush()
        for body in (b"2", b"\xff"):
            answer = await client.answer(await client.send(framed(body)))
            assert answer.data == framed(body)
        odd = await client.answer(await client.send(framed(b""), path="/unknown"))
        assert odd.headers["grpc-status"] == "12"


async def test_calls_of_both_ways_share_one_connection() -> None:
    """Headers that fill and turn over the compression table, in calls that the lane takes and that it does not."""
    async with serving(echo) as client:
        for number in range(60):
            headers = {"trace-id": f"{number:064}", "again": "and again" * (number % 3)}
            if number % 4 == 1:
                headers["content-length"] = str(len(framed(b"x" * number)))
            path = "/unknown" if number % 4 == 2 else LOG_METRIC
            timeout = {"grpc-timeout": f"{number + 1}S"} if number % 4 == 3 else {}
            answer = await client.answer(
                await client.send(framed(b"x" * number), path=path, headers=headers | timeout)
            )
            assert answer.headers["grpc-status"] == ("12" if path == "/unknown" else "0"), number
            assert answer.data == (b"" if path == "/unknown" else framed(b"x" * number))


async def test_odd_shapes_of_ordinary_frames() -> None:
    """Padding, priority, a header block in several frames, an empty last frame, trailers: all legal."""
    async with serving(echo) as client:
        stream = await client.send(b"", end=False)
        client.h2.send_data(stream, framed(b"padded")[:4], pad_length=9)
        client.h2.send_data(stream, framed(b"padded")[4:], pad_length=0)
        client.h2.send_data(stream, b"", pad_length=255, end_stream=True)
        await client.flush()
        assert (await client.answer(stream)).data == framed(b"padded")

        long = {f"long-{number}": "x" * 4000 for number in range(5)}
        assert (await client.answer(await client.send(framed(b"a"), headers=long))).data == framed(b"a")

        stream = await client.open(priority_weight=7, priority_depends_on=0)
        await client.send_more(stream, framed(b"first"))
        assert (await client.answer(stream)).data == framed(b"first")

        stream = await client.send(framed(b"trailed"), end=False)
        client.h2.send_headers(stream, [("checksum", "1")], end_stream=True)
        await client.flush()
        assert (await client.answer(stream)).data == framed(b"trailed")

        stream = await client.send(framed(b"padded trailers"), end=False)
        await client.send_bytes(b"\0\0\x09\1\x0d" + stream.to_bytes(4) + b"\2\0\2a1\1b\0\0")
        assert (await client.answer(stream)).data == framed(b"padded trailers")


async def test_bytes_may_come_one_by_one() -> None:
    """A frame is dealt with when it is whole, wherever the network cut it."""
    async with serving(echo) as client:
        await client.answer(await client.send(framed(b"quick")))
        client.one_by_one = True
        assert (await client.answer(await client.send(framed(b"slow")))).data == framed(b"slow")


@lane_only
async def test_data_behind_the_end_of_a_request_ends_its_stream_alone() -> None:
    """The method is cancelled; the connection goes on."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def method(body: bytes) -> bytes:
        if body == b"fine":
            return body
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return body

    async with serving(method) as client:
        stream = await client.send(framed(b""))
        await begun.wait()
        await client.send_frame(DataFrame(stream, b"more"))
        assert (await client.answer(stream)).reset == ErrorCodes.STREAM_CLOSED
        await cancelled.wait()
        assert (await client.answer(await client.send(framed(b"fine")))).data == framed(b"fine")


@lane_only
async def test_window_updates_that_make_no_sense_end_their_stream_alone() -> None:
    """An increment of nothing, and one beyond 2^31 - 1 (RFC 9113, 6.9)."""

    async def method(body: bytes) -> bytes:
        if body:
            return body
        await asyncio.Event().wait()
        return b""

    async with serving(method) as client:
        for increment, code in ((0, ErrorCodes.PROTOCOL_ERROR), (2**31 - 1, ErrorCodes.FLOW_CONTROL_ERROR)):
            stream = await client.send(framed(b""))
            await client.send_bytes(b"\0\0\4\x08\0" + stream.to_bytes(4) + increment.to_bytes(4))
            assert (await client.answer(stream)).reset == code
        assert (await client.answer(await client.send(framed(b"fine")))).data == framed(b"fine")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\x40\1\0\0\0\0\0\1" + bytes(0x4001), ErrorCodes.FRAME_SIZE_ERROR),
        (b"\0\0\1\1\4\0\0\0\5\xff", ErrorCodes.PROTOCOL_ERROR),  # a header block that can't be read
        (b"\0\0\1\1\4\0\0\0\2\x82", ErrorCodes.PROTOCOL_ERROR),  # a stream that is not the client's to open
        (b"\0\0\0\0\0\0\0\0\0", ErrorCodes.PROTOCOL_ERROR),  # DATA of no stream
        (b"\0\0\1\1\0\0\0\0\5\x82\0\0\0\0\0\0\0\0\1", ErrorCodes.PROTOCOL_ERROR),  # within a header block
    ],
)
@lane_only
async def test_what_breaks_http2_ends_the_connection_with_its_reason(data: bytes, code: ErrorCodes) -> None:
    """GOAWAY names the error, and the server closes."""
    async with serving(echo) as client:
        await client.answer(await client.send(framed(b"x")))
        await client.send_bytes(data)
        await client.until(lambda: client.closed)
        assert client.goaway_codes == [code]


async def test_a_deadline_in_the_turn_in_which_the_method_is_to_begin_is_told() -> None:
    """A task that is cancelled before its first step answers nobody: no call may be left open for that."""
    async with serving(echo) as client:
        for _ in range(3):
            stream = await client.open_with({"grpc-timeout": "30m"})
            await asyncio.sleep(0.01)  # the server has read the headers
            await client.send_more(stream, framed(b"x"))
            time.sleep(0.05)  # the end of the request and of its time come in one turn of the loop
            assert (await client.answer(stream)).headers["grpc-status"] in ("0", "4")
        assert (await client.answer(await client.send(framed(b"y")))).data == framed(b"y")


@pytest.mark.parametrize("long", [False, True], ids=["padded", "continued"])
@lane_only
async def test_a_block_means_another_thing_when_the_table_has_changed(long: bool) -> None:
    """Remembered header blocks are forgotten, also where h2 itself has read the one that changed the table."""
    paths = [f"{SERVICE}/LogMetric".encode(), b"/other/Method"]
    indexed = [b"\x44" + bytes([len(path)]) + path for path in paths]  # ":path" with incremental indexing
    common = b"\x83\x86\x00\x02te\x08trailers\x00\x0ccontent-type\x10application/grpc"
    newest = b"\xbe"  # index 62: what was added last
    async with serving(echo) as client:
        stream = client.h2.get_next_available_stream_id()

        async def call(block: bytes, *, as_h2_reads: bool = False) -> str:
            nonlocal stream
            client.answers[stream] = Answer()
            client.expect(stream)
            frames = [(1, 4, block)]
            if as_h2_reads:
                frames = [(1, 0, block[:9]), (9, 4, block[9:])] if long else [(1, 12, b"\1" + block + b"\0")]
            for type_, flags, payload in frames:
                await client.send_bytes(
                    len(payload).to_bytes(3) + bytes([type_, flags]) + stream.to_bytes(4) + payload
                )
            await client.send_frame(DataFrame(stream, framed(b"x"), flags=["END_STREAM"]))
            answered = await client.answer(stream)
            stream += 2
            return answered.headers["grpc-status"]

        assert await call(common + indexed[0]) == "0"
        assert await call(common + newest) == "0"
        assert await call(common + newest) == "0"
        assert await call(common + indexed[1], as_h2_reads=True) == "12"
        assert await call(common + newest) == "12"


async def test_a_refused_body_does_not_use_up_the_connection(lane: bool) -> None:
    """What is still sent for a call that was answered early is credited: hundreds of megabytes would do."""
    async with serving(echo) as client:
        for _ in range(30):
            stream = await client.send(framed(b"", length=2**31), end=False)
            assert (await client.answer(stream)).headers["grpc-status"] == "8"
            for _ in range(10):
                await client.send_frame(DataFrame(stream, bytes(16_000)))
        assert (await client.answer(await client.send(framed(b"x")))).data == framed(b"x")


async def test_other_methods_of_the_service_are_found_by_their_paths(lane: bool) -> None:
    """The lane serves whatever method the server has, and no other."""
    async with serving(echo) as client:
        answer = await client.answer(await client.send(framed(GOOD), path=f"{SERVICE}/LogMetricS"))
        assert answer.headers["grpc-status"] == "12"


@lane_only
async def test_a_call_whose_time_ends_while_its_refusal_waits_leaves_nothing_behind() -> None:
    """It is answered once: what is kept of a second answer would never be let go."""

    async def method(body: bytes) -> bytes:
        return bytes(900_000)

    share = Share(Bounds(request_timeout_s=0.2))
    rpc = unary_rpc(method)
    async with listening([rpc], share=share) as (_, port), connected(port) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
        client.h2.increment_flow_control_window(2**30)
        await client.flush()
        client.reading.clear()
        await client.open_with({"grpc-timeout": "500m"})  # refused before that, since it does not come whole
        for _ in range(12):
            await client.send(framed(b"x"))
        await asyncio.sleep(0.7)
        client.reading.set()
        assert share.unread.bytes
        await client.until(lambda: sum(answer.ended for answer in client.answers.values()) == 13)
        assert share.unread.bytes == 0
