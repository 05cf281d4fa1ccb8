"""What a run does with the answers it gets, over real sockets and both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Server, Stream
from h2.errors import ErrorCodes
from ingestor_api.analytics.v1 import LogMetricsRequest, LogMetricsResponse

from ingestor.loadgen import Brake, LoadPlan, LoadReport, Progress, run
from ingestor.loadgen.plan import Protocol
from ingestor.loadgen.report import Results
from ingestor.loadgen.rows import Rows
from tests.loadgen.cable import Cable
from tests.loadgen.fake_server import ACCEPT, HANG, FakeServer, Reply, Row, listening, microseconds

Plans = Callable[..., LoadPlan]
both = pytest.mark.parametrize("protocol", ["grpc", "http"])


def sums_up(results: Results) -> bool:
    """Every metric that was sent has exactly one outcome."""
    ends = results.acknowledged + results.rejected
    return results.sent == ends + sum(results.refused.values()) + sum(results.unanswered.values())


def assert_arrived(server: FakeServer, plan: LoadPlan, report: LoadReport, count: int) -> None:
    rows = Rows(plan, report.started_us)
    assert sorted(row.value for row in server.taken) == list(range(count))
    for row in server.taken:
        index, time_us = rows.place(int(row.value))
        series = rows.series[index]
        assert (row.service_name, row.metric_name, row.labels) == (
            series.service_name,
            series.metric_name,
            series.labels,
        )
        assert microseconds(row.time) == time_us


@pytest.mark.parametrize("protocol", ["grpc", "http", "both"])
@pytest.mark.parametrize("batch", [1, 10])
async def test_every_row_arrives_once_as_derived(
    server: FakeServer, plan: Plans, protocol: str, batch: int
) -> None:
    """All of the plan's rows and no other, with the rpc that the batch size calls for."""
    wanted = plan(protocol=protocol, batch=batch, count=105, labels=2)
    report = await run(wanted)
    assert_arrived(server, wanted, report, 105)
    assert {arrival.rpc for arrival in server.arrivals} == {"LogMetric" if batch == 1 else "LogMetrics"}
    assert {arrival.protocol for arrival in server.arrivals} == set(wanted.protocols)
    assert report.total.acknowledged == report.total.sent == 105
    assert report.unsent == 0
    assert report.total.latency is not None
    assert report.total.latency.p50_ms <= report.total.latency.max_ms


@both
@pytest.mark.parametrize("status", [Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE])
async def test_refusals_are_counted_by_grpc_code(
    server: FakeServer, plan: Plans, protocol: Protocol, status: Status
) -> None:
    """The same names over both protocols, and the first message of each."""
    server.reply = lambda rows, _: Reply(refuse=status) if rows[0].value < 50 else ACCEPT
    report = await run(plan(protocol=protocol))
    assert report.protocols[protocol].refused == {status.name: 50}
    assert report.total.acknowledged == 150
    assert report.messages == {status.name: "as told"}
    assert sums_up(report.total)


@both
@pytest.mark.parametrize("status", [Status.DEADLINE_EXCEEDED, Status.INTERNAL])
async def test_an_error_that_leaves_it_open_is_unanswered(
    server: FakeServer, plan: Plans, protocol: str, status: Status
) -> None:
    """It is counted by its code, and not tried again."""
    server.reply = lambda rows, _: Reply(refuse=status) if rows[0].value < 50 else ACCEPT
    report = await run(plan(protocol=protocol, retries=3))
    assert report.total.unanswered == {status.name: 50}
    assert report.total.retries == 0
    assert sums_up(report.total)


async def test_an_http_error_without_a_status_in_its_body_counts_by_number(plan: Plans) -> None:
    """A wrong path answers 404 in plain text, which is UNIMPLEMENTED."""
    wanted = plan(protocol="http", count=20)
    report = await run(wanted.model_copy(update={"http": wanted.http + "/elsewhere"}))
    assert report.total.refused == {"UNIMPLEMENTED": 20}


async def test_a_refused_stream_is_a_refusal(plan: Plans) -> None:
    """HTTP/2's REFUSED_STREAM promises that nothing was processed, so the request may be sent again."""

    class Draining:
        async def refuse(self, stream: Stream[LogMetricsRequest, LogMetricsResponse]) -> None:
            await stream._stream.reset(ErrorCodes.REFUSED_STREAM)

        def __mapping__(self) -> dict[str, Handler]:
            types = (Cardinality.UNARY_UNARY, LogMetricsRequest, LogMetricsResponse)
            return {"/analytics.v1.AnalyticsService/LogMetrics": Handler(self.refuse, *types)}

    server, listener = Server([Draining()]), listening()
    await server.start(sock=listener)
    target = f"127.0.0.1:{listener.getsockname()[1]}"
    report = await run(plan(protocol="grpc", count=20, retries=1, grpc=target))
    assert report.total.refused == {"UNAVAILABLE": 20}
    assert report.total.retries == 2
    server.close()
    await server.wait_closed()


@both
async def test_rejected_rows_are_counted_apart(server: FakeServer, plan: Plans, protocol: str) -> None:
    """The others of their request are acknowledged; reasons are counted."""
    server.reply = lambda rows, _: Reply(reject=(0, 3))
    report = await run(plan(protocol=protocol))
    assert (report.total.acknowledged, report.total.rejected) == (160, 40)
    assert report.rejected_reasons == {"no good": 40}
    assert sums_up(report.total)


@both
async def test_an_answer_that_does_not_add_up_is_no_acknowledgement(
    server: FakeServer, plan: Plans, protocol: str
) -> None:
    """A server that accepts fewer rows than it was sent, and rejects none, has not said which."""
    server.reply = lambda rows, _: Reply(miscount=1)
    report = await run(plan(protocol=protocol, count=20))
    assert report.total.unanswered == {"malformed answer": 20}


@both
async def test_refused_requests_are_tried_again_until_taken(
    server: FakeServer, plan: Plans, protocol: str
) -> None:
    """With retries, a refusal that passes leaves no trace but the number of retries."""
    server.reply = lambda _, attempt: Reply(refuse=Status.RESOURCE_EXHAUSTED) if attempt < 2 else ACCEPT
    wanted = plan(protocol=protocol, count=60, retries=2)
    report = await run(wanted)
    assert_arrived(server, wanted, report, 60)
    assert report.total.retries == 12
    assert not report.total.refused


# A header can't ask for less than a second.
@pytest.mark.parametrize(("protocol", "wait_s"), [("grpc", 0.3), ("http", 1)])
async def test_retry_after_is_honoured(server: FakeServer, plan: Plans, protocol: str, wait_s: float) -> None:
    """The second attempt comes no sooner than the server asked for, in a header or in RetryInfo."""
    server.reply = lambda _, attempt: (
        ACCEPT if attempt else Reply(refuse=Status.UNAVAILABLE, retry_after_s=wait_s)
    )
    report = await run(plan(protocol=protocol, count=10, retries=1))
    first, second = server.arrivals
    assert second.at_s - first.at_s >= wait_s
    assert report.total.acknowledged == 10


async def test_a_body_that_is_too_large_is_not_tried_again(server: FakeServer, plan: Plans) -> None:
    """413 is RESOURCE_EXHAUSTED too, and permanent."""
    server.reply = lambda *_: Reply(refuse=Status.RESOURCE_EXHAUSTED, http_status=413)
    report = await run(plan(protocol="http", count=10, retries=3))
    assert report.total.refused == {"RESOURCE_EXHAUSTED": 10}
    assert len(server.arrivals) == 1


@both
async def test_a_hanging_request_is_unanswered_after_its_timeout(
    server: FakeServer, plan: Plans, protocol: str
) -> None:
    """It costs its own time only: the other streams go on."""
    server.reply = lambda rows, _: HANG if rows[0].value == 0 else ACCEPT
    report = await run(plan(protocol=protocol, timeout_s=0.3))
    assert report.total.unanswered == {"timeout": 10}
    assert report.total.acknowledged == 190
    assert 0.3 <= report.elapsed_s < 3


@both
async def test_a_lost_connection_is_made_again(server: FakeServer, plan: Plans, protocol: str) -> None:
    """Requests in flight are unanswered, none is sent twice, the rest goes to the server that came back."""
    waiting = asyncio.Event()

    def reply(rows: list[Row], _: int) -> Reply:
        if rows[0].value < 100:
            return ACCEPT
        waiting.set()
        return HANG if not cut else ACCEPT

    server.reply = reply
    cut = False
    async with Cable(server.grpc_port if protocol == "grpc" else server.http_port) as cable:
        target = {"grpc": f"127.0.0.1:{cable.port}", "http": f"http://127.0.0.1:{cable.port}"}
        task = asyncio.create_task(run(plan(protocol=protocol, retries=3, **target)))
        await waiting.wait()
        cable.cut()
        cut = True
        await asyncio.sleep(0.1)
        await cable.mend()
        report = await task
    lost = report.total.unanswered["connection lost"]
    assert 10 <= lost <= 40
    assert report.total.acknowledged == 200 - lost
    assert len({arrival.rows[0].value for arrival in server.arrivals}) == len(server.arrivals) == 20
    assert not report.unreachable


@both
async def test_a_retried_request_whose_answer_is_lost_is_unanswered(
    server: FakeServer, plan: Plans, protocol: str
) -> None:
    """The refusal before says nothing about the attempt that came after."""
    server.reply = lambda _, attempt: HANG if attempt else Reply(refuse=Status.RESOURCE_EXHAUSTED)
    report = await run(plan(protocol=protocol, count=10, retries=5, timeout_s=0.2))
    assert report.total.unanswered == {"timeout": 10}
    assert not report.total.refused


@both
@pytest.mark.parametrize("batch", [1, 10])
async def test_named_requests_are_repeated_until_they_are_answered(
    server: FakeServer, plan: Plans, protocol: str, batch: int
) -> None:
    """Under the same name with the same rows, also after an answer that was lost; each name once."""
    server.reply = lambda _, attempt: Reply(delay_s=3600, taken=False) if attempt == 0 else ACCEPT
    chosen = plan(
        protocol=protocol, count=20, batch=batch, retries=5, timeout_s=0.3, request_ids=True, ack="committed"
    )
    report = await run(chosen)
    assert report.total.acknowledged == 20
    assert {arrival.ack for arrival in server.arrivals} == {"ACK_LEVEL_COMMITTED"}
    sent: dict[str, list[list[Row]]] = {}
    for arrival in server.arrivals:
        sent.setdefault(arrival.request_id, []).append(arrival.rows)
    assert len(sent) == 20 // batch
    assert all(rows == [rows[0], rows[0]] for rows in sent.values())


async def test_a_refused_repetition_says_nothing_of_what_was_not_answered(
    server: FakeServer, plan: Plans
) -> None:
    """The first attempt may have been taken."""
    server.reply = lambda _, attempt: Reply(refuse=Status.RESOURCE_EXHAUSTED) if attempt else HANG
    report = await run(plan(protocol="grpc", count=10, retries=2, timeout_s=0.2, request_ids=True))
    assert report.total.unanswered == {"timeout": 10}


async def test_a_target_that_takes_no_connection_is_given_up(server: FakeServer, plan: Plans) -> None:
    """The other protocol's target gets the rest, and the report says which one was not there."""
    async with Cable(server.http_port) as cable:
        dead = f"http://127.0.0.1:{cable.port}"
    report = await run(plan(http=dead, reconnect_s=0.2))
    assert set(report.unreachable) == {"http"}
    assert report.protocols["http"].sent == 0
    assert report.total.acknowledged + report.unsent == 200


async def test_progress_ends_with_the_totals(plan: Plans) -> None:
    """The last call tells all that the report does."""
    seen: list[Progress] = []
    report = await run(plan(), progress=seen.append)
    assert seen[-1].acknowledged == seen[-1].sent == report.total.sent == 200


@both
async def test_a_pulled_brake_waits_for_answers_in_flight(
    server: FakeServer, plan: Plans, protocol: str
) -> None:
    """Nothing more is sent, and what was sent gets its answer."""
    server.reply = lambda rows, _: Reply(delay_s=0.2)
    brake = Brake()
    asyncio.get_running_loop().call_later(0.1, brake.pull)
    report = await run(plan(protocol=protocol), brake=brake)
    assert report.interrupted
    assert report.total.acknowledged == report.total.sent == len(server.taken) < 200
    assert report.total.acknowledged + report.unsent == 200


@both
async def test_a_brake_pulled_twice_waits_for_nothing(server: FakeServer, plan: Plans, protocol: str) -> None:
    """What is in flight then is unanswered."""
    server.reply = lambda *_: HANG
    brake = Brake()
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, brake.pull)
    loop.call_later(0.25, brake.pull)
    report = await run(plan(protocol=protocol), brake=brake)
    assert report.elapsed_s < 1
    assert report.total.unanswered == {"interrupted": 10 * len(server.arrivals)}
