"""One gRPC connection, driven through the generated stub: what every betterproto2 client gets.

It never sends a request twice and never waits for a server to come back: that is for the runner to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from google.rpc.error_details_pb2 import RetryInfo
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error
from ingestor_api.analytics.v1 import (
    AnalyticsServiceStub,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
)

from ingestor.loadgen.answers import (
    CONNECTION_LOST,
    TIMEOUT,
    Answer,
    NotConnected,
    accepted,
    failed,
    unanswered,
)
from ingestor.loadgen.bodies import Bodies
from ingestor.loadgen.identity import client_context, key_headers
from ingestor.loadgen.plan import LoadPlan, Protocol

CONNECT_TIMEOUT_S = 5.0
# HTTP/2's REFUSED_STREAM, as grpclib words it: the one reset that promises that nothing was processed.
_REFUSED_STREAM = ("error_code: 7", "error_code: ErrorCodes.REFUSED_STREAM")
# Besides its own errors grpclib lets h2's out, and trips over what a closing connection has lost.
_LOST = (StreamTerminatedError, ProtocolError, H2Error, AttributeError, AssertionError, OSError)


class GrpcClient:
    """Requests over one channel; `send` may run concurrently."""

    protocol: Protocol = "grpc"

    def __init__(self, plan: LoadPlan, bodies: Bodies) -> None:
        host, _, port = plan.grpc.rpartition(":")
        self._channel = Channel(host.strip("[]"), int(port), ssl=client_context(plan, "h2"))
        self._stub = AnalyticsServiceStub(self._channel, timeout=plan.timeout_s, metadata=key_headers(plan))
        self._bodies = bodies
        self._single = plan.batch == 1

    def encode(self, first: int, size: int) -> bytes:
        """The body of a request with rows [first, first + size)."""
        return self._bodies.single(first) if self._single else self._bodies.batch(first, size)

    async def send(self, body: bytes, size: int) -> Answer:
        """Sends `size` encoded rows once; raises NotConnected when nothing was sent."""
        await self._connect()
        try:
            response = await self._exchange(body)
        except GRPCError as error:
            return failed(error.status.name, error.message or "", retry_after_s=_retry_after_s(error.details))
        except TimeoutError:
            return unanswered(TIMEOUT)
        except _LOST as error:
            return _lost(error)
        return _accepted(response, size)

    async def close(self) -> None:
        self._channel.close()

    async def _connect(self) -> None:
        # A call connects by itself, but then an error doesn't tell whether anything was sent.
        # Not asyncio.timeout, for the reason that `Work._pause` gives.
        connecting = asyncio.ensure_future(self._channel.__connect__())
        try:
            await asyncio.wait((connecting,), timeout=CONNECT_TIMEOUT_S)
            if not connecting.done():
                raise NotConnected("connecting took too long")
            connecting.result()
        except OSError as error:
            raise NotConnected(str(error)) from error
        finally:
            connecting.cancel()

    async def _exchange(self, body: bytes) -> LogMetricResponse | LogMetricsResponse:
        if self._single:
            return await self._stub.log_metric(_EncodedMetric(body))
        return await self._stub.log_metrics(_EncodedBatch(body))


class _EncodedMetric(LogMetricRequest):
    """What the stub takes, but encoded already (see bodies)."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return self.body


class _EncodedBatch(LogMetricsRequest):
    """The same for a batch."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return self.body


def _accepted(response: LogMetricResponse | LogMetricsResponse, size: int) -> Answer:
    if isinstance(response, LogMetricResponse):
        return accepted(size, int(response.success), ())
    return accepted(size, response.accepted, tuple((row.index, row.reason) for row in response.rejected))


def _lost(error: BaseException) -> Answer:
    if str(error).endswith(_REFUSED_STREAM):
        return failed(Status.UNAVAILABLE.name, "stream refused")
    return unanswered(CONNECTION_LOST, str(error))


def _retry_after_s(details: Iterable[Any] | None) -> float | None:
    for detail in details or ():
        if isinstance(detail, RetryInfo):
            return float(detail.retry_delay.ToTimedelta().total_seconds())
    return None
