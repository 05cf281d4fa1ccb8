"""What a log line may be made of, and what none ever shows."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator

import aiohttp
import pytest
from grpclib import GRPCError
from ingestor_api.analytics.v1 import AckLevel, LogMetricRequest, LogMetricsRequest, Metric
from loguru import logger

from ingestor.telemetry import logs
from tests.gateway import Gateway, gateway
from tests.transport.grpc.raw_h2 import RawClient

FORGED = "2026-01-01 00:00:00.000 ERROR    all is lost"
HOSTILE = f"s\r\n{FORGED}\n\x1b[2J\x1b]0;title\x07\x9b31m\x00\u2028\u202e"
SECRET = "payload-4711"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")
FORMATS = ("text", "json")


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Everything that is logged, in each format."""
    stream = io.StringIO()
    logs.configure(request.param, "TRACE", stream)
    yield stream
    logs.configure("text", "INFO")


def lines(log: io.StringIO) -> list[str]:
    return log.getvalue().splitlines()


def assert_clean(log: io.StringIO) -> None:
    """Nothing raw, and no line that is not the log's own."""
    assert RAW.search(log.getvalue()) is None
    for line in log.getvalue().split("\n")[:-1]:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:|    |\{", line), line
        assert not line.startswith(FORGED)


def test_a_message_stays_one_line(log: io.StringIO) -> None:
    """Whatever is in it, or in a field; nothing is lost, and JSON gives back what went in."""
    logger.bind(field=HOSTILE).warning("about {}", HOSTILE)
    assert_clean(log)
    assert len(lines(log)) == 1
    (line,) = lines(log)
    if line.startswith("{"):
        assert json.loads(line)["message"] == f"about {HOSTILE}"
        assert json.loads(line)["field"] == HOSTILE
    else:
        assert f"s\\r\\n{FORGED}\\n\\x1b[2J" in line


def test_braces_and_tags_are_text(log: io.StringIO) -> None:
    """What loguru would take for a field or a colour."""
    logger.bind(f="{line}</dim>").info("{}", "{extra} </level> <red>x {0}")
    assert "{extra} </level> <red>x {0}" in log.getvalue()
    assert "{line}</dim>" in log.getvalue()


def test_a_long_message_is_cut(log: io.StringIO) -> None:
    """At some thousand characters."""
    logger.info("{}", "x" * 100_000)
    assert len(log.getvalue()) < 5_000


def test_a_traceback_shows_where_and_not_what(log: io.StringIO) -> None:
    """Files, lines, kinds of errors and their causes; texts only of kinds that quote no value."""
    try:
        try:
            float(SECRET)
        except ValueError as error:
            raise ConnectionError(f"told\n{FORGED}\x1b[2J") from error
    except ConnectionError as error:
        logger.opt(exception=error).error("failed")
    try:
        {}[SECRET]  # type: ignore[index]
    except KeyError:
        logger.exception("failed")
    text = log.getvalue()
    assert SECRET not in text
    for part in (
        "ValueError: (its text is left out",
        "ConnectionError: told",
        "KeyError: (its",
        "test_logs.py",
        "float(",
    ):
        assert part in text
    assert text.index("ValueError") < text.index("ConnectionError")
    assert_clean(log)


def test_a_group_of_errors_is_told_with_its_members(log: io.StringIO) -> None:
    """Each by kind, and none by value."""
    logger.opt(exception=ExceptionGroup("some", [ValueError(SECRET), OSError("gone")])).error("failed")
    assert "ExceptionGroup: some (2 sub-exceptions)" in log.getvalue()
    assert "OSError: gone" in log.getvalue()
    assert SECRET not in log.getvalue()


async def _hostile_grpc(served: Gateway) -> None:
    for metric in (
        Metric(HOSTILE, SECRET, 1.0),
        Metric("s", "m", 1.0, labels={HOSTILE: SECRET}),
        Metric(SECRET * 100, "m", 1.0),
    ):
        with pytest.raises(GRPCError):
            await served.stub.log_metrics(LogMetricsRequest([metric], ack=AckLevel.COMMITTED))
    with pytest.raises(GRPCError):
        await served.stub.log_metric(LogMetricRequest(SECRET, "m", 666.0, ack=AckLevel.COMMITTED))
    client = RawClient()
    await client.connect(served.grpc_port)
    for headers in (
        {"user-agent": "\x1b[2J", "x-secret": SECRET},
        {"x-\x1b[31m": SECRET},
        {"grpc-timeout": SECRET},
        {"grpc-encoding": "\x9b" + SECRET},
    ):
        await client.answer(await client.send(SECRET.encode(), headers=headers))
    await client.answer(await client.send(b"", path=f"/{SECRET}/\x1b[31m"))
    await client.close()


async def _hostile_http(served: Gateway) -> None:
    metric = {"serviceName": HOSTILE, "metricName": SECRET, "value": 1, "labels": {SECRET: HOSTILE}}
    assert (await served.post("/v1/metrics", metric))[0] == 400
    refused = {"serviceName": SECRET, "metricName": "m", "value": 666, "ack": "ACK_LEVEL_COMMITTED"}
    assert (await served.post("/v1/metrics", refused))[0] == 400
    for body in (f'{{"{SECRET}": 1', f'{{"value": "{SECRET}"}}', b"\xff\x1b[2J" + SECRET.encode()):
        assert (await served.post("/v1/metrics", body))[0] == 400
    await served.post(f"/{SECRET}%1b%0a%c2%9b", {})
    for request in (
        f"GET /{SECRET} HTTP/9.9\r\n\r\n",
        f"\x1b[2J{SECRET} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX-A: \x1b[2J{SECRET}\x00\r\n\r\n",
        f"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
        f"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nExpect: \x1b{SECRET}\r\nContent-Length: 0\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(served.host, served.http_port)
        writer.write(request.encode("latin-1"))
        writer.write_eof()
        await reader.read()
        writer.close()


async def test_nothing_that_callers_send_is_logged(database_url: str, log: io.StringIO) -> None:
    """Names, labels, values, paths, headers, bodies, over both protocols, the refused and the dead-lettered; at
    the chattiest level. Some come near a line, and none raw."""
    async with gateway(database_url) as served:
        await served.database.transactions.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN IF NEW.value = 666 THEN RAISE 'no % for %', NEW.value, NEW.service_name; END IF;"
            " RETURN NEW; END$$"
        )
        await served.database.transactions.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        await _hostile_grpc(served)
        await _hostile_http(served)
        async with aiohttp.ClientSession() as session:
            agent = {"User-Agent": SECRET, "X-Request-Id": SECRET}
            await session.get(f"http://{served.host}:{served.http_port}/healthz", headers=agent)
        assert served.count("ingestor_metrics_dead_lettered_total") == 2
    assert "dead_letters" in log.getvalue()
    assert SECRET not in log.getvalue()
    assert_clean(log)


async def test_the_password_is_never_logged(database_url: str, log: io.StringIO) -> None:
    """Neither while the database is there, nor when it is gone, refuses us or has an odd address."""
    url = f"{database_url}{'&' if '?' in database_url else '?'}password={SECRET}"
    async with gateway(url) as served:
        assert served.app.database is not None
    for wrong in (
        f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        f"postgresql://u:{SECRET}@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nowhere",
        f"postgresql://u:{SECRET}@127.0.0.1:1/d?sslmode=nonsense",
    ):
        with pytest.raises(Exception, match="can't be used") as failure:
            async with gateway(wrong):
                pass
        logger.opt(exception=failure.value).error("failed")
    assert SECRET not in log.getvalue()
