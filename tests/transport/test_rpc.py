"""How methods that stream are called, whatever the transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pyarrow as pa
import pytest
from google.protobuf.message import Message
from ingestor_api.analytics.v1 import LogMetricsRequest, LogMetricsResponse, Metric

from ingestor.errors import Invalid
from ingestor.metadata import METADATA, CallMetadata
from ingestor.model import Limits
from ingestor.transport.columns import ReferenceDecoder
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc, StreamedRequest
from tests.recorder import Recorder, service_on
from tests.transport.streaming_kit import ADD, COUNT, ECHO, Number, Numbers, value_of


async def given(*values: int) -> AsyncGenerator[Message, None]:
    for value in values:
        yield Number(value=value)


def method(numbers: Numbers, path: str) -> Rpc:
    return next(rpc for rpc in numbers.rpcs() if rpc.path == path)


@pytest.mark.parametrize(
    ("path", "sent", "answers"),
    [(COUNT, [3], [0, 1, 2]), (ADD, [1, 2, 3], [6]), (ADD, [], [0]), (ECHO, [], [])],
)
async def test_streams_in_every_direction(path: str, sent: Sequence[int], answers: Sequence[int]) -> None:
    """By what the descriptors say of the method."""
    METADATA.set(CallMetadata({}))
    rpc = method(Numbers(), path)
    assert rpc.streams
    assert [value_of(answer) async for answer in rpc.stream(given(*sent))] == answers


@pytest.mark.parametrize("sent", [[], [1, 2]])
async def test_a_method_of_one_request_takes_exactly_one(sent: Sequence[int]) -> None:
    """Anything else is Invalid, and the method is not begun."""
    numbers = Numbers()
    with pytest.raises(Invalid):
        await anext(method(numbers, COUNT).stream(given(*sent)))
    assert numbers.seen == []


async def test_answers_are_made_when_they_are_asked_for() -> None:
    """The next request is not read before; and who stops reading closes the method."""
    METADATA.set(CallMetadata({}))
    numbers = Numbers()
    answers = method(numbers, ECHO).stream(given(1, 2, 3))
    assert value_of(await anext(answers)) == 1
    assert numbers.seen == [1]
    assert not numbers.ended.is_set()
    await answers.aclose()
    assert numbers.ended.is_set()


@pytest.mark.parametrize("columnar", [True, False])
async def test_both_entries_of_stream_metrics_answer_alike(columnar: bool) -> None:
    """By columns and by typed messages: in order, until a request is bad."""
    queue = Recorder()
    service = service_on(queue, Limits())
    if not columnar:
        service.stream_metrics_columns = None  # type: ignore[method-assign,assignment]
    bound = Descriptors.of_package("ingestor_api").bind(service, ColumnOptions(ReferenceDecoder, 10))
    rpc = next(each for each in bound if each.path.endswith("/StreamMetrics"))
    assert rpc.columnar is columnar
    good, bad = Metric("s", "m", 1.0), Metric("s", "m")

    async def requests() -> AsyncGenerator[StreamedRequest, None]:
        for metrics in ([good], [good, bad, good], [], [good]):
            yield await rpc.read(bytes(LogMetricsRequest(metrics)))

    answers = rpc.stream(requests())
    first, second = [LogMetricsResponse.parse(await anext(answers)) for _ in range(2)]
    assert (first.accepted, first.rejected) == (1, [])
    assert (second.accepted, [each.index for each in second.rejected]) == (2, [1])
    with pytest.raises(Invalid, match="must not be empty"):
        await anext(answers)
    assert [batch.rows for batch in queue.batches] == [1, 2]


async def test_a_streamed_request_of_too_many_elements_is_never_made() -> None:
    """As one message it would be forty times as large: it is counted before, as a unary one is."""
    service = service_on(Recorder(), Limits())
    bound = Descriptors.of_package("ingestor_api").bind(service, ColumnOptions(ReferenceDecoder, 10))
    rpc = next(each for each in bound if each.path.endswith("/StreamMetrics"))
    assert isinstance(await rpc.read(bytes(LogMetricsRequest([Metric()] * 10))), pa.RecordBatch)
    with pytest.raises(Invalid, match="too many elements"):
        await rpc.read(bytes(LogMetricsRequest([Metric()] * 11)))
