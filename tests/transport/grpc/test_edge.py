"""Bytes that no client would send."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import ExtensionFrame

from tests.gateway import Gateway
from tests.transport.grpc.kit import GOOD, framed
from tests.transport.grpc.raw_h2 import LOG_METRIC, RawClient


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no message"),
        (framed(GOOD)[:-1], "ends before"),
        (framed(GOOD)[:3], "ends before"),
        (framed(b"\xff\xff"), "not a valid analytics.v1.LogMetricRequest"),
        (framed(b"\x0a\x02\xff\xfe"), "not a valid"),  # a string that is not UTF-8
        (framed(GOOD[:-1]), "not a valid"),  # cut within a field: betterproto2 would take it
        (framed(GOOD) + framed(GOOD), "goes on"),
        (framed(GOOD) + b"x", "goes on"),
    ],
)
async def test_malformed_messages_are_invalid(
    raw: RawClient, running: Gateway, body: bytes, text: str
) -> None:
    """INVALID_ARGUMENT, never UNKNOWN, nothing stored, and the connection goes on."""
    answer = await raw.answer(await raw.send(body))
    assert answer.headers["grpc-status"] == "3"
    assert text in answer.headers["grpc-message"]
    good = await raw.answer(await raw.send(framed(GOOD)))
    assert good.headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 1


async def test_nothing_is_taken_before_the_request_has_ended(raw: RawClient, running: Gateway) -> None:
    """A whole message without the stream's end is not acted on; empty DATA frames are no end."""
    stream = await raw.send(b"", end=False)
    await raw.send_more(stream, framed(GOOD)[:7], end=False)
    await raw.send_more(stream, end=False)
    await raw.send_more(stream, framed(GOOD)[7:], end=False)
    await raw.send_more(stream, end=False)
    await raw.answer(await raw.send(framed(GOOD)))
    assert running.count("ingestor_metrics_received_total") == 1
    await raw.send_more(stream)
    assert (await raw.answer(stream)).headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 2


async def test_what_goes_on_is_not_buffered(raw: RawClient, running: Gateway) -> None:
    """A request that goes on is refused while it does, and what it still sends is thrown away: more than the
    connection's window, so the connection goes on as well."""
    stream = await raw.send(framed(GOOD) + b"x", end=False)
    answer = await raw.answer(stream)
    assert answer.headers["grpc-status"] == "3"
    for _ in range(100):
        flood = await raw.send(framed(b"", length=2**30), end=False)
        for _ in range(3):
            await raw.send_more(flood, bytes(2**14), end=False)
        await raw.answer(flood)
    good = await raw.answer(await raw.send(framed(GOOD)))
    assert good.headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 1


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"path": LOG_METRIC + "\u00e9"}, "12"),
        ({"headers": {"name": "G\u00fcnther"}}, "3"),
        ({"headers": {"n\u00e4me": "x"}}, "3"),
        ({"headers": {"authorization": "Bearer \u00e9"}}, "16"),
        ({"headers": {"x-api-key": "\u00e9"}}, "16"),
        ({"headers": {"grpc-timeout": "1\u00b2S"}}, "3"),
    ],
)
async def test_bytes_that_are_not_ascii_in_headers_fail_their_call_alone(
    raw: RawClient, problems: list[str], options: dict[str, Any], status: str
) -> None:
    """The call gets a status; others on the connection go on."""
    other = await raw.send(framed(GOOD), end=False)
    answer = await raw.answer(await raw.send(framed(GOOD), **options))
    assert answer.headers["grpc-status"] == status
    await raw.send_more(other)
    assert (await raw.answer(other)).headers["grpc-status"] == "0"
    assert not problems


async def test_every_value_of_a_header_has_to_be_ascii(raw: RawClient, problems: list[str]) -> None:
    """Also one that another of the same name comes behind."""
    other = await raw.send(framed(GOOD), end=False)
    twice = await raw.send(framed(GOOD), headers=[("name", "G\u00fcnther"), ("name", "Guenther")])
    assert (await raw.answer(twice)).headers["grpc-status"] == "3"
    await raw.send_more(other)
    assert (await raw.answer(other)).headers["grpc-status"] == "0"
    assert not problems


async def test_binary_metadata_that_is_not_base64_does_not_leave_the_call_without_an_answer(
    raw: RawClient,
) -> None:
    """Nobody here reads it."""
    answer = await raw.answer(await raw.send(framed(GOOD), headers={"trace-bin": "a"}))
    assert answer.headers["grpc-status"] == "0"


async def test_unknown_frames_are_ignored(raw: RawClient, problems: list[str]) -> None:
    """As RFC 9113, 5.5 demands: on the connection and on a stream."""
    stream = await raw.send(framed(GOOD), end=False)
    for stream_id in (0, stream):
        frame = ExtensionFrame(0xBE, stream_id)
        frame.parse_body(memoryview(b"what?"))
        await raw.send_frame(frame)
    await raw.send_more(stream)
    assert (await raw.answer(stream)).headers["grpc-status"] == "0"
    assert not problems


async def test_the_size_is_checked_at_the_prefix(raw: RawClient) -> None:
    """A declared gigabyte is refused when its five bytes of prefix are read, not when it has been buffered."""
    stream = await raw.send(framed(b"x", length=2**30), end=False)
    answer = await raw.answer(stream)
    assert answer.headers["grpc-status"] == "8"
    assert "MESSAGE_BYTES_MAX" in answer.headers["grpc-message"]


async def test_compressed_messages_are_named(raw: RawClient) -> None:
    """UNIMPLEMENTED says what to send instead."""
    answer = await raw.answer(await raw.send(framed(GOOD, compressed=1)))
    assert answer.headers["grpc-status"] == "12"
    assert "identity" in answer.headers["grpc-message"]


async def test_a_time_beyond_the_calendar_is_refused_and_not_our_fault(raw: RawClient) -> None:
    """Seconds that no datetime can hold, and nanoseconds out of range, are INVALID_ARGUMENT for `time`."""
    for timestamp in (b"\x08" + b"\xff" * 8 + b"\x7f", b"\x10\xff\xff\xff\xff\x07"):
        answer = await raw.answer(
            await raw.send(framed(GOOD + b"\x22" + bytes([len(timestamp)]) + timestamp))
        )
        assert answer.headers["grpc-status"] == "3"
        assert "time:" in answer.headers["grpc-message"]
