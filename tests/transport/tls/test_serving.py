"""Both protocols over TLS, by real clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import trustme
from ingestor_api.analytics.v1 import LogMetricRequest, LogMetricsRequest, LogMetricsResponse, Metric

from tests.certificates import Pki
from tests.gateway import Gateway, gateway
from tests.server_process import serve
from tests.transport.grpc.kit import SERVICE, give_room, waiting, without_room

BATCH = bytes(LogMetricsRequest([Metric("s", "m", float(number)) for number in range(1000)]))
JSON = {"serviceName": "s", "metricName": "m", "value": 1}


def credentials(pki: Pki, leaf: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    """For grpcio's client."""
    roots = pki.ca.cert_pem.bytes()
    if leaf is None:
        return grpc.ssl_channel_credentials(roots)
    chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
    return grpc.ssl_channel_credentials(roots, leaf.private_key_pem.bytes(), chain)


async def call(
    served: Gateway, using: grpc.ChannelCredentials, rpc: str = "LogMetrics", body: bytes = BATCH
) -> bytes:
    """One unary call by grpcio on a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(served.grpc_address, using, options=own) as channel:
        method: Any = channel.unary_unary(f"{SERVICE}/{rpc}")
        return bytes(await method(body, timeout=20))


@pytest.mark.parametrize("lane", ["true", "false"])
async def test_grpcio_over_tls(database_url: str, pki: Pki, lane: str) -> None:
    """Unary calls and a stream, over one connection, in the lane and without it."""
    async with gateway(database_url, client=pki.client(), grpc_lane=lane, **pki.settings) as served:
        async with grpc.aio.secure_channel(served.grpc_address, credentials(pki)) as channel:
            unary: Any = channel.unary_unary(f"{SERVICE}/LogMetrics")
            answers = await asyncio.gather(*(unary(BATCH, timeout=20) for _ in range(20)))
            assert [LogMetricsResponse.parse(answer).accepted for answer in answers] == [1000] * 20
            stream: Any = channel.stream_stream(f"{SERVICE}/StreamMetrics")
            streamed = [
                LogMetricsResponse.parse(answer).accepted async for answer in stream(iter([BATCH] * 3))
            ]
            assert streamed == [1000] * 3
        assert (await served.stub.log_metric(LogMetricRequest("s", "m", 1.0))).success


async def test_http_over_tls(database_url: str, pki: Pki) -> None:
    """JSON and pages; plain HTTP on that port is refused."""
    async with gateway(database_url, client=pki.client(), **pki.settings) as served:
        assert await served.post("/v1/metrics", JSON) == (200, {"success": True})
        async with served.http.get("/metrics") as response:
            assert "ingestor_tls_certificate_expiry_timestamp_seconds 4.1024448e+09" in await response.text()
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.request("GET", f"http://{served.host}:{served.http_port}/healthz"):
                pass


async def _handshake(port: int, context: ssl.SSLContext) -> ssl.SSLObject:
    """What was agreed on."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    agreed: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return agreed


async def test_each_port_offers_its_protocol(database_url: str, pki: Pki) -> None:
    """ALPN says h2 on the gRPC port, and http/1.1 on the other, whatever else the client can."""
    context = pki.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with gateway(database_url, client=pki.client(), **pki.settings) as served:
        assert (await _handshake(served.grpc_port, context)).selected_alpn_protocol() == "h2"
        assert (await _handshake(served.http_port, context)).selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("port", ["grpc_port", "http_port"])
async def test_old_versions_and_ciphers_are_refused(database_url: str, pki: Pki, port: str) -> None:
    """TLS 1.2 with forward secrecy and authenticated encryption is the least."""
    async with gateway(database_url, client=pki.client(), **pki.settings) as served:
        usual = pki.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        agreed = (await _handshake(getattr(served, port), usual)).cipher()
        assert agreed is not None
        assert agreed[0].startswith("ECDHE-ECDSA-")
        assert "GCM" in agreed[0] or "CHACHA20" in agreed[0]
        weak = pki.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _handshake(getattr(served, port), weak)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old = pki.client(minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _handshake(getattr(served, port), old)
        assert served.count("ingestor_tls_handshake_failures_total") == 2


async def test_clients_without_a_certificate_of_the_ca_are_refused(database_url: str, pki: Pki) -> None:
    """Over both protocols, with TLS_CLIENT_CA; one that the CA has issued is served."""
    known, stranger = pki.ca.issue_cert("client.example"), trustme.CA().issue_cert("client.example")
    async with gateway(database_url, client=pki.client(known), **pki.mutual) as served:
        assert LogMetricsResponse.parse(await call(served, credentials(pki, known))).accepted == 1000
        assert await served.post("/v1/metrics", JSON) == (200, {"success": True})
        for leaf in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(served, credentials(pki, leaf))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                async with aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=pki.client(leaf))
                ) as session:
                    await session.get(f"https://{served.host}:{served.http_port}/healthz")
        assert served.count("ingestor_tls_handshake_failures_total") >= 4


async def test_an_optional_certificate_may_be_missing_but_not_wrong(database_url: str, pki: Pki) -> None:
    """TLS_CLIENT_AUTH=optional serves strangers, and refuses who shows a certificate of another CA."""
    settings = {**pki.mutual, "tls_client_auth": "optional"}
    stranger = trustme.CA().issue_cert("client.example")
    async with gateway(database_url, client=pki.client(), **settings) as served:
        assert await served.post("/v1/metrics", JSON) == (200, {"success": True})
        with pytest.raises(grpc.aio.AioRpcError):
            await call(served, credentials(pki, stranger))


async def test_stopping_answers_what_is_under_way_over_tls(database_url: str, pki: Pki) -> None:
    """As without TLS: the open call is answered and nothing is lost; the connection ends by itself."""
    async with without_room(database_url, client=pki.client(), **pki.settings) as served:
        body = bytes(LogMetricRequest("s", "m", 1.0))
        under_way = asyncio.create_task(call(served, credentials(pki), "LogMetric", body))
        await waiting(served, 1)
        stopping = asyncio.create_task(served.app.stop(20))
        await give_room(served)
        assert await under_way
        assert await stopping == 0
        assert served.count("ingestor_metrics_committed_total") == 6


async def test_silent_connections_are_nobodys(
    database_url: str, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connects and says nothing is let go when the time for a handshake is over."""
    monkeypatch.setattr("ingestor.transport.tls.listener._HANDSHAKE_S_MAX", 0.2)
    async with gateway(database_url, client=pki.client(), **pki.settings) as served:
        for port in (served.grpc_port, served.http_port):
            silent = socket.create_connection(("127.0.0.1", port))
            silent.setblocking(False)
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(silent, 1), 20) == b""
            silent.close()
        assert await served.post("/v1/metrics", JSON) == (200, {"success": True})


async def test_the_log_says_where_the_page_is(database_url: str, pki: Pki, tmp_path: Path) -> None:
    """As an address that can be clicked."""
    async with serve(tmp_path, database_url=database_url, **pki.settings) as server:
        line = await server.until_logged("the page is at")
        assert line["message"].endswith(f" https://127.0.0.1:{server.http_port}/")
