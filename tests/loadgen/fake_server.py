"""A server of the API that the load generator can be tested against: it records what it takes, and does to a
request what a test tells it to.

It stores nothing, checks nothing, and shares no code with the ingestor.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from ingestor_api.analytics.v1 import (
    AnalyticsServiceBase,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
    RejectedMetric,
)

# The statuses of DESIGN's table, as far as the tests use them.
HTTP_STATUS = {
    Status.INVALID_ARGUMENT: 400,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNAVAILABLE: 503,
    Status.DEADLINE_EXCEEDED: 504,
    Status.INTERNAL: 500,
}


@dataclass(frozen=True)
class Row:
    """One metric as it arrived."""

    service_name: str
    metric_name: str
    value: float
    time: datetime
    labels: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What the server does to a request: takes it, unless told otherwise."""

    refuse: Status | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    reject: Sequence[int] = ()
    miscount: int = 0
    delay_s: float = 0.0
    taken: bool = True


ACCEPT = Reply()
HANG = Reply(delay_s=3600)


@dataclass
class Arrival:
    """One request, whatever became of it."""

    protocol: str
    rpc: str
    at_s: float
    rows: list[Row]
    ack: str = "ACK_LEVEL_UNSPECIFIED"
    request_id: str = ""


@dataclass
class FakeServer:
    """Serves both protocols on ports of its own; `reply` decides by the rows and by how often they came."""

    reply: Callable[[list[Row], int], Reply] = lambda rows, attempt: ACCEPT
    arrivals: list[Arrival] = field(default_factory=list)
    taken: list[Row] = field(default_factory=list)
    authorized_by: list[tuple[str, str | None]] = field(default_factory=list)
    grpc_port: int = 0
    http_port: int = 0

    async def __aenter__(self) -> Self:
        self._attempts: dict[float, int] = {}
        self._released = asyncio.Event()
        self._grpc = Server([_GrpcService(self)])
        listen(self._grpc, RecvRequest, self._authorized)
        self._http = web.AppRunner(_http_app(self), access_log=None, shutdown_timeout=0)
        grpc_socket, http_socket = listening(), listening()
        self.grpc_port, self.http_port = grpc_socket.getsockname()[1], http_socket.getsockname()[1]
        await self._grpc.start(sock=grpc_socket)
        await self._http.setup()
        await web.SockSite(self._http, http_socket).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()  # or a request that hangs would keep the server
        self._grpc.close()
        await self._http.cleanup()
        await self._grpc.wait_closed()

    async def _authorized(self, event: RecvRequest) -> None:
        self.authorized_by.append(("grpc", str(event.metadata.get("authorization"))))

    async def decide(
        self, protocol: str, rpc: str, rows: list[Row], ack: str | None, request_id: str
    ) -> Reply:
        """Records the request and what becomes of it."""
        now_s = asyncio.get_running_loop().time()
        self.arrivals.append(Arrival(protocol, rpc, now_s, rows, ack or "ACK_LEVEL_UNSPECIFIED", request_id))
        attempt = self._attempts.get(rows[0].value, 0)
        self._attempts[rows[0].value] = attempt + 1
        reply = self.reply(rows, attempt)
        if reply.refuse is None and reply.taken:
            self.taken += [row for index, row in enumerate(rows) if index not in reply.reject]
        with suppress(TimeoutError):
            async with asyncio.timeout(reply.delay_s):
                await self._released.wait()
        return reply


class _GrpcService(AnalyticsServiceBase):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def log_metric(self, message: LogMetricRequest) -> LogMetricResponse:
        terms = message.ack.proto_name, message.request_id
        _raise(await self._server.decide("grpc", "LogMetric", [_row(message)], *terms))
        return LogMetricResponse(success=True)

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        rows, terms = (
            [_row(metric) for metric in message.metrics],
            (message.ack.proto_name, message.request_id),
        )
        reply = await self._server.decide("grpc", "LogMetrics", rows, *terms)
        _raise(reply)
        return LogMetricsResponse(
            accepted=len(message.metrics) - len(reply.reject) - reply.miscount,
            rejected=[RejectedMetric(index=index, reason="no good") for index in reply.reject],
        )


def _raise(reply: Reply) -> None:
    if reply.refuse is not None:
        wait = reply.retry_after_s
        details = None if wait is None else [RetryInfo(retry_delay=Duration(nanos=int(wait * 1e9)))]
        raise GRPCError(reply.refuse, "as told", details)


def _row(metric: Metric | LogMetricRequest) -> Row:
    assert metric.value is not None
    assert metric.time is not None
    return Row(
        metric.service_name, metric.metric_name, metric.value, metric.time.astimezone(UTC), metric.labels
    )


def _http_app(server: FakeServer) -> web.Application:
    async def log_metric(request: web.Request) -> web.Response:
        metric = await request.json()
        reply = await server.decide("http", "LogMetric", [_json_row(metric)], *_terms(metric))
        return _refusal(reply) or web.json_response({"success": True})

    async def log_metrics(request: web.Request) -> web.Response:
        batch = await request.json()
        rows = [_json_row(metric) for metric in batch["metrics"]]
        reply = await server.decide("http", "LogMetrics", rows, *_terms(batch))
        # As proto3 JSON has it: 64-bit numbers are strings, zeros are left out.
        rejected = [
            {"index": str(index), "reason": "no good"} if index else {"reason": "no good"}
            for index in reply.reject
        ]
        accepted = len(rows) - len(rejected) - reply.miscount
        return _refusal(reply) or web.json_response({"accepted": str(accepted), "rejected": rejected})

    async def authorized(request: web.Request, _: web.StreamResponse) -> None:
        server.authorized_by.append(("http", request.headers.get("Authorization")))

    app = web.Application(client_max_size=2**26)
    app.on_response_prepare.append(authorized)
    app.router.add_post("/v1/metrics", log_metric)
    app.router.add_post("/v1/metrics:batch", log_metrics)
    return app


def _terms(body: dict[str, Any]) -> tuple[str | None, str]:
    return body.get("ack"), body.get("requestId", "")


def _json_row(metric: dict[str, Any]) -> Row:
    time = datetime.fromisoformat(metric["time"])
    return Row(metric["serviceName"], metric["metricName"], metric["value"], time, metric.get("labels", {}))


def _refusal(reply: Reply) -> web.Response | None:
    if reply.refuse is None:
        return None
    headers = {} if reply.retry_after_s is None else {"Retry-After": str(reply.retry_after_s)}
    status: dict[str, Any] = {"code": reply.refuse.value, "message": "as told", "details": []}
    return web.Response(
        status=reply.http_status or HTTP_STATUS[reply.refuse], text=json.dumps(status), headers=headers
    )


def listening() -> socket.socket:
    """A socket on a port of its own, for a server to take over."""
    # Named as TCP, or asyncio leaves Nagle on: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    return listener


def microseconds(time: datetime) -> int:
    """Since 1970, exact."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
