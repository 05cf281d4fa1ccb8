"""Metadata of calls, in the lane and out of it: what a method sees of a client's, and what a client sees of its."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest

from ingestor.errors import Invalid
from ingestor.metadata import METADATA, Value
from tests.transport.grpc.kit import framed, listening, serving
from tests.transport.grpc.raw_h2 import HEADERS, LOG_METRIC, Answer, RawClient
from tests.transport.streaming_kit import ECHO, Numbers, number


class Method:
    """Notes what it received, sends `sent` back, and may fail."""

    def __init__(self, *sent: tuple[str, Value], fails: bool = False) -> None:
        self.received: dict[str, object] = {}
        self._sent = sent
        self._fails = fails

    async def __call__(self, body: bytes) -> bytes:
        metadata = METADATA.get()
        assert metadata is not None
        self.received = dict(metadata.received)
        metadata.sent += self._sent
        if self._fails:
            msg = "no"
            raise Invalid(msg)
        return b""


async def headers_of(client: RawClient, **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await client.answer(await client.send(framed(b""), headers=named))).headers


async def test_methods_see_custom_metadata_alone() -> None:
    """Not the protocol's own headers; base64 becomes bytes, padded or not, joined or not; what is none is left
    out. Each call has its own."""
    method = Method()
    async with serving(method) as client:
        for _ in range(3):  # the lane remembers blocks of headers
            await headers_of(
                client,
                authorization="Bearer x",
                a_bin="AAE=,AAE",
                b_bin="!",
                grpc_timeout="1S",
                grpc_accept_encoding="gzip",
                user_agent="me",
            )
            assert method.received == {"authorization": ("Bearer x",), "a-bin": (b"\0\1", b"\0\1")}
            await headers_of(client)
            assert method.received == {}
    assert METADATA.get() is None


async def test_a_name_may_come_twice() -> None:
    """Both values are there, in their order."""
    method = Method()
    async with serving(method) as client:
        stream = client.h2.get_next_available_stream_id()
        client.answers[stream] = Answer()
        client.h2.send_headers(stream, [(":path", LOG_METRIC), *HEADERS, ("a", "1"), ("b", "x"), ("a", "2")])
        await client.send_more(stream, framed(b""))
        await client.answer(stream)
    assert method.received == {"a": ("1", "2"), "b": ("x",)}


@pytest.mark.parametrize("fails", [False, True])
async def test_clients_see_what_the_method_sent(fails: bool) -> None:
    """Before the answer, or with the status where there is no answer; bytes as base64."""
    async with serving(Method(("a", "x y"), ("b-bin", b"\0\1"), fails=fails)) as client:
        headers = await headers_of(client)
        assert (headers["a"], headers["b-bin"]) == ("x y", "AAE")
        assert headers["grpc-status"] == ("3" if fails else "0")
        if fails:
            assert headers["grpc-message"] == "no"


@pytest.mark.parametrize(
    "bad",
    [
        ("A", "x"),
        ("grpc-status", "0"),
        ("te", "x"),
        (":path", "x"),
        ("a", "é"),
        ("a", "x\ny"),
        ("a", b"x"),
        ("a-bin", "x"),
    ],
)
async def test_what_cannot_be_sent_is_left_out_and_logged(
    problems: list[str], bad: tuple[str, Value]
) -> None:
    """The call is answered all the same: its work is done by then."""
    async with serving(Method(bad, ("good", "x"))) as client:
        headers = await headers_of(client)
    assert (headers["grpc-status"], headers["good"]) == ("0", "x")
    assert "A" not in headers
    assert len(problems) == 1
    assert repr(bad[0]) in problems[0]


async def test_grpcio_and_a_stream_agree() -> None:
    """An independent implementation, both ways."""
    numbers = Numbers()
    async with (
        listening(numbers.rpcs()) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        sent = (("a", "1"), ("a", "2"), ("b-bin", b"\xff\0"))
        method: Any = channel.stream_stream(ECHO)
        call = method([number(1)], metadata=sent)
        initial = list(await call.initial_metadata())
        assert [answer async for answer in call] == [number(1)]
    assert numbers.metadata == {"a": ("1", "2"), "b-bin": (b"\xff\0",)}
    assert [pair for pair in initial if pair[0].startswith("answer")] == [
        ("answer", "yes"),
        ("answer-bin", b"\0\1"),
    ]
