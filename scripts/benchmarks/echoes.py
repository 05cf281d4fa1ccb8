"""Servers that only answer, to compare with: `python echoes.py grpclib|grpcio|aiohttp PORT`.

Each is its library as its documentation shows it, under uvloop where that is the faster way.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio
import uvloop
from aiohttp import web
from google.protobuf.message_factory import GetMessageClass
from grpclib.server import Server
from ingestor_api.analytics.v1 import AnalyticsServiceBase, LogMetricRequest, LogMetricResponse

from ingestor.transport.rpc import Descriptors

SERVICE = "analytics.v1.AnalyticsService"


class Echo(AnalyticsServiceBase):
    """The generated service, without ingest."""

    async def log_metric(self, message: LogMetricRequest) -> LogMetricResponse:
        return LogMetricResponse(success=True)


async def grpclib(port: int) -> None:
    """grpclib's own server."""
    server = Server([Echo()])
    await server.start("127.0.0.1", port)
    await server.wait_closed()


async def grpcio(port: int) -> None:
    """grpcio's asyncio server, decoding with upb."""
    pool = Descriptors.of_package("ingestor_api").pool
    request: Any = GetMessageClass(pool.FindMessageTypeByName("analytics.v1.LogMetricRequest"))
    response: Any = GetMessageClass(pool.FindMessageTypeByName("analytics.v1.LogMetricResponse"))

    async def log_metric(_request: object, _context: object) -> object:
        return response(success=True)

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(log_metric, request.FromString, response.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"LogMetric": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def aiohttp(port: int) -> None:
    """aiohttp's server: the body is read and sent back."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type="application/json")

    application = web.Application()
    application.router.add_post("/v1/metrics", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    chosen = {"grpclib": grpclib, "grpcio": grpcio, "aiohttp": aiohttp}[sys.argv[1]]
    uvloop.run(chosen(int(sys.argv[2])))
