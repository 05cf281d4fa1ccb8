"""With a rate the clock says when requests are sent, and slow answers can't hide."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingestor.loadgen import LoadPlan, run
from tests.loadgen.fake_server import ACCEPT, HANG, FakeServer, Reply

Plans = Callable[..., LoadPlan]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_requests_are_sent_by_the_clock(server: FakeServer, plan: Plans, protocol: str) -> None:
    """Request i leaves at i * batch / rate, however slow the others are."""
    server.reply = lambda rows, _: Reply(delay_s=0.15)
    report = await run(plan(protocol=protocol, rate=200, count=100, connections=8))
    begin_s = server.arrivals[0].at_s
    lags_s = [arrival.at_s - begin_s - arrival.rows[0].value / 200 for arrival in server.arrivals]
    assert len(lags_s) == 10
    # On a busy machine one of them may be late for its own reasons; one that had to wait for others makes all late.
    assert sorted(map(abs, lags_s))[-3] < 0.1
    assert report.elapsed_s == pytest.approx(0.6, abs=0.3)


async def test_latency_counts_from_the_time_a_request_was_due(server: FakeServer, plan: Plans) -> None:
    """One stall of 500 ms on the only stream shows in the latency of all requests that were due meanwhile."""
    server.reply = lambda rows, _: Reply(delay_s=0.5) if rows[0].value == 0 else ACCEPT
    report = await run(plan(protocol="http", rate=200, count=100, connections=1))
    latency = report.total.latency
    assert latency is not None
    assert 150 < latency.p50_ms < 600  # due at 0, 50, 100 ... ms, and answered after 500 ms
    assert latency.max_ms >= 500
    assert report.sent_late >= 70  # due from 50 to 350 ms
    assert 400 < report.lag_ms_max < 700
    assert report.total.acknowledged == 100


async def test_what_is_not_sent_within_the_duration_is_counted(server: FakeServer, plan: Plans) -> None:
    """One stream at 100 ms a request fulfils a tenth, at most, of a plan of 100 requests a second."""
    server.reply = lambda rows, _: Reply(delay_s=0.1)
    report = await run(plan(protocol="http", rate=1000, duration_s=0.3, connections=1))
    assert report.planned == 300
    assert 10 <= report.total.sent == len(server.taken) <= 30
    assert report.unsent == 300 - report.total.sent


async def test_a_request_older_than_its_timeout_is_not_sent(server: FakeServer, plan: Plans) -> None:
    """So that a server that hangs ends a run by count too."""
    server.reply = lambda *_: HANG
    report = await run(plan(protocol="http", rate=1000, count=100, connections=1, timeout_s=0.2))
    assert report.total.unanswered == {"timeout": report.total.sent}
    assert 10 <= report.total.sent <= 20
    assert report.unsent == 100 - report.total.sent
    assert report.elapsed_s < 2


async def test_a_duration_ends_a_run_without_rate(server: FakeServer, plan: Plans) -> None:
    """Nothing is planned, so nothing is unsent."""
    report = await run(plan(protocol="http", duration_s=0.3))
    assert report.elapsed_s == pytest.approx(0.3, abs=0.3)
    assert (report.planned, report.unsent) == (None, 0)
    assert report.total.acknowledged == len(server.taken) > 0
