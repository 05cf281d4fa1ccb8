"""Clients that send a body once and tell what came back: an answer, or none.

They never send twice, and whatever happens to a connection is an answer that did not come.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from tests.fault.harness.requests import Method, Request

# Besides its own errors grpclib lets h2's out, and trips over what a closing connection has lost.
_LOST = (StreamTerminatedError, ProtocolError, H2Error, AttributeError, AssertionError, OSError, TimeoutError)
_CODES = {3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 6: "ALREADY_EXISTS", 8: "RESOURCE_EXHAUSTED"}
_CODES |= {9: "FAILED_PRECONDITION", 13: "INTERNAL", 14: "UNAVAILABLE"}

Address = Callable[[], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt got; `code` is None when nothing came back."""

    code: str | None
    message: str = ""
    accepted: int = 0
    rejected: tuple[int, ...] = ()


class Caller(Protocol):
    """One connection to a gateway, made anew when it is lost."""

    async def send(self, request: Request, body: bytes, timeout_s: float) -> Answer: ...
    async def close(self) -> None: ...


class _Bytes(CodecBase):
    """Messages are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        del message_type
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        del message_type
        return data


class GrpcCaller:
    """Calls over one HTTP/2 connection."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel: Channel | None = None

    async def send(self, request: Request, body: bytes, timeout_s: float) -> Answer:
        """Sends it once."""
        if self._channel is None:
            self._channel = Channel(*self._address(), codec=_Bytes())
        method = UnaryUnaryMethod(self._channel, request.method.path, bytes, bytes)
        try:
            async with asyncio.timeout(timeout_s):
                content = await method(body, timeout=timeout_s)
        except GRPCError as error:
            return Answer(error.status.name, error.message or "")
        except _LOST as error:
            await self.close()
            return Answer(None, f"{type(error).__name__}: {error}")
        response = request.method.message("Response").FromString(content)
        if request.method is Method.LOG_METRIC:
            return Answer("OK", accepted=int(response.success))
        return Answer("OK", "", response.accepted, tuple(each.index for each in response.rejected))

    async def close(self) -> None:
        """Drops the connection; the next call makes a new one."""
        if self._channel is not None:
            with suppress(*_LOST):
                self._channel.close()
            self._channel = None


class HttpCaller:
    """Posts over one HTTP/1.1 connection."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), headers={"Content-Type": "application/json"}
        )

    async def send(self, request: Request, body: bytes, timeout_s: float) -> Answer:
        """Sends it once."""
        host, port = self._address()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(f"http://{host}:{port}{request.method.route}", data=body) as response,
            ):
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(None, f"{type(error).__name__}: {error}")
        document = json.loads(content)
        if status != 200:
            return Answer(_CODES.get(document["code"], str(document["code"])), document["message"])
        if request.method is Method.LOG_METRIC:
            return Answer("OK", accepted=int(document["success"]))
        rejected = tuple(int(each.get("index", 0)) for each in document.get("rejected", ()))
        return Answer("OK", "", int(document.get("accepted", 0)), rejected)

    async def close(self) -> None:
        """Drops the connection."""
        await self._session.close()
