"""Clients as they are written for a service with several gateways: when one does not answer, another is asked.

They retry as grpcio's retry policy and plain HTTP clients do, and never say more than a last answer: what is not
answered well within their patience failed for good.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import cycle
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio

from tests.fault.harness.callers import Answer, HttpCaller
from tests.fault.harness.requests import Method, Request

_AGAIN_S = 0.05
_CLOSING_S = 20.0
STREAM = "/analytics.v1.AnalyticsService/StreamMetrics"
_POLICY = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "analytics.v1.AnalyticsService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Channels of one process would share a connection, and hide from one another what becomes of it.
    ("grpc.use_local_subchannel_pool", 1),
]
Gateways = Sequence[tuple[str, int]]


class GrpcioCaller:
    """grpcio with both addresses and a retry policy: nothing of its own is done about a failure."""

    def __init__(self, gateways: Gateways) -> None:
        addresses = ",".join(f"{host}:{port}" for host, port in gateways)
        options = [*_RECONNECT, ("grpc.service_config", json.dumps(_POLICY))]
        self._channel = grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options)

    async def send(self, request: Request, body: bytes, timeout_s: float) -> Answer:
        """Sends it; grpcio repeats it."""
        try:
            call: Any = self._channel.unary_unary(request.method.path)
            content = await call(body, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, error.details() or "")
        return answer_of(request.method, content)

    async def close(self) -> None:
        """Drops the connections."""
        await self._channel.close()


class GrpcioStream:
    """A stream of one gateway, by grpcio's blocking side: where a write fails, its asyncio side says INTERNAL
    instead of what the server said, and forgets answers that had come."""

    def __init__(self, address: str) -> None:
        self._requests = SimpleQueue[bytes | None]()
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        method: Any = self._channel.stream_stream(STREAM)
        self._call = method(iter(self._requests.get, None))

    def write(self, body: bytes) -> None:
        """Sends a request when there is room."""
        self._requests.put(body)

    async def read(self) -> bytes | None:
        """The next answer; None when there is none any more."""
        return await asyncio.to_thread(self._next)

    def _next(self) -> bytes | None:
        try:
            content: bytes | None = next(self._call, None)
        except grpc.RpcError:
            return None
        return content

    async def close(self) -> Answer:
        """Says that no more comes, and returns how the server ended it."""
        self._requests.put(None)
        await asyncio.wait_for(asyncio.to_thread(self._next), _CLOSING_S)
        code, details = self._call.code(), self._call.details()
        self._channel.close()
        return Answer(code.name, details or "")


class HttpRetrier:
    """HTTP that asks the next gateway when one does not answer or says 503. Its requests have a request_id."""

    def __init__(self, gateways: Gateways) -> None:
        self._turn = cycle(gateways)
        self._gateway = next(self._turn)
        self._caller = HttpCaller(lambda: self._gateway)
        self.retries = 0

    async def send(self, request: Request, body: bytes, timeout_s: float) -> Answer:
        """Sends it until it is answered or the time is over."""
        answer = Answer("DEADLINE_EXCEEDED", "never sent")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    answer = await self._caller.send(request, body, timeout_s)
                    if answer.code not in (None, "UNAVAILABLE"):
                        break
                    self.retries += 1
                    self._gateway = next(self._turn)
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            pass
        return answer

    async def close(self) -> None:
        """Drops the connection."""
        await self._caller.close()


def answer_of(method: Method, content: bytes) -> Answer:
    """What a response says."""
    response: Any = method.message("Response").FromString(content)
    if method is Method.LOG_METRIC:
        return Answer("OK", accepted=int(response.success))
    return Answer("OK", "", response.accepted, tuple(each.index for each in response.rejected))
