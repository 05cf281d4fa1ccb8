"""Calls that end early: deadlines, clients that go away, and what cancels itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingestor.deadline import CALLER_SAYS
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served


async def test_a_deadline_ends_the_call(library: Library, served: Served) -> None:
    """504, and the method is cancelled; with no time left it is not begun; what is no timeout is 400."""
    cancelled = library.cancelled
    answer = await served.ask("GET", "/v1/books/slow", headers={"Grpc-Timeout": "20m"})
    assert (answer.status, answer.json["code"]) == (504, 4)
    assert library.cancelled == cancelled + 1
    library.requests.clear()
    assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": "0S"})).status == 504
    for text in ("1", "x", "1s", "123456789S", "-1S", ""):
        assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": text})).status == 400
    assert library.requests == []
    assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": "99999999H"})).status == 200


async def test_a_deadline_also_bounds_the_wait_for_the_body(served: Served) -> None:
    """A client that does not send it is told in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /v1/everything HTTP/1.1\r\nHost: x\r\nGrpc-Timeout: 20m\r\nContent-Length: 2\r\n\r\n{"
    )
    async with asyncio.timeout(5):
        assert b" 504 " in await reader.readline()
    writer.close()


async def test_methods_know_whether_the_caller_said_how_long_it_waits(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each call anew, also on one connection."""
    said: list[bool] = []

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            said.append(CALLER_SAYS.get())

    monkeypatch.setattr(library, "requests", Requests())
    for headers in ({"Grpc-Timeout": "5S"}, {}, {"Grpc-Timeout": "5S"}):
        await served.ask("GET", "/v1/books/x", headers=headers)
    assert said == [True, False, True]


async def test_a_client_that_goes_away_ends_its_call(
    library: Library, served: Served, complaints: list[str]
) -> None:
    """As over gRPC; nothing is logged."""
    cancelled = library.cancelled
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /v1/books/slow HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        while not library.requests:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        while library.cancelled == cancelled:
            await asyncio.sleep(0.001)
    assert await served.server.drain(5)
    assert complaints == []


async def test_something_that_was_cancelled_within_a_method_is_our_fault(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    """The caller is there, and gets an answer."""

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            raise asyncio.CancelledError

    monkeypatch.setattr(library, "requests", Requests())
    answer = await served.ask("GET", "/v1/books/x")
    assert (answer.status, answer.json["code"]) == (500, 13)
    assert len(complaints) == 1
