"""A client's certificate in place of a key, over both protocols."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from ingestor_api.analytics.v1 import AnalyticsServiceStub, LogMetricRequest

from ingestor.access import KeysFile
from ingestor.app import App
from ingestor.settings import load
from tests.access.kit import make
from tests.certificates import Pki

MINE, OTHER = "billing.example", "stranger.example"


@pytest.fixture(params=["true", "false"], ids=["lane", "grpclib"])
async def served(
    request: pytest.FixtureRequest, database_url: str, open_path: Path
) -> AsyncIterator[tuple[Pki, int, int, str]]:
    """A CA, the ports of a gateway that wants its certificates or keys, and a key without a certificate."""
    pki, file = Pki.make(open_path), KeysFile(open_path / "keys")
    (named, _), (plain, text) = make("write:billing.", certificate_names=(MINE,)), make("write:payments.")
    file.change(lambda _: [named, plain])
    settings = {
        **pki.mutual,
        "tls_client_auth": "optional",
        "database_url": database_url,
        "data_dir": str(open_path / "data"),
        "keys_file": str(file.path),
        "grpc_lane": request.param,
    }
    app = App(load({**settings, "grpc_port": 0, "http_port": 0}))
    addresses = await app.start()
    yield pki, addresses.grpc_port, addresses.http_port, text
    await app.stop(5)


async def over_grpc(port: int, context: ssl.SSLContext, service: str, key: str | None) -> Status:
    context.set_alpn_protocols(["h2"])
    channel = Channel("127.0.0.1", port, ssl=context)
    sent = {"authorization": f"Bearer {key}"} if key else {}
    try:
        stub = AnalyticsServiceStub(channel)
        await stub.log_metric(LogMetricRequest(service, "m", 1.0), metadata=sent)
    except GRPCError as error:
        return error.status
    finally:
        channel.close()
    return Status.OK


async def over_http(port: int, context: ssl.SSLContext, service: str, key: str | None) -> int:
    headers = {"x-api-key": key} if key else {}
    body = {"serviceName": service, "metricName": "m", "value": 1}
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"https://127.0.0.1:{port}/v1/metrics", json=body, headers=headers, ssl=context
        ) as response,
    ):
        return response.status


async def test_a_certificate_is_as_good_as_its_key(served: tuple[Pki, int, int, str]) -> None:
    """With that key's scopes; a name that no key has, and no certificate, are none; a key that is sent counts for
    more."""
    pki, grpc_port, http_port, key = served
    trials = [
        (MINE, "billing.api", None, Status.OK, 200),
        (MINE, "payments.api", None, Status.PERMISSION_DENIED, 403),
        (MINE, "payments.api", key, Status.OK, 200),
        (MINE, "billing.api", key, Status.PERMISSION_DENIED, 403),
        (MINE, "billing.api", "ing_nobody", Status.UNAUTHENTICATED, 401),
        (OTHER, "billing.api", None, Status.UNAUTHENTICATED, 401),
        (None, "billing.api", None, Status.UNAUTHENTICATED, 401),
        (None, "payments.api", key, Status.OK, 200),
    ]
    for name, service, sent, status, http in trials:
        leaf = None if name is None else pki.ca.issue_cert(name)
        assert await over_grpc(grpc_port, pki.client(leaf), service, sent) is status, (name, service)
        assert await over_http(http_port, pki.client(leaf), service, sent) == http, (name, service)
