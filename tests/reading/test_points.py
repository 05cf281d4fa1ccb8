"""Points that are made of columns are the points that are made one by one: as bytes, as JSON, and as a list."""

from __future__ import annotations

import json
from datetime import timedelta
from operator import itemgetter

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from ingestor_api.analytics.v1 import Point, QueryMetricsResponse

from ingestor.encoded import Encoded
from ingestor.model.questions import MetricPoints
from ingestor.reading.points import told
from ingestor.timestamps import from_micros
from ingestor.transport.messages import encoder, is_long
from ingestor.transport.rpc import Descriptors

_NOW_US = 1_795_000_000_000_000
_LAST_US = 2**35 * 1_000_000
DESCRIPTOR = Descriptors.of_package("ingestor_api").pool.FindMessageTypeByName(
    "analytics.v1.QueryMetricsResponse"
)
ENCODE = encoder(DESCRIPTOR, QueryMetricsResponse)


@pytest.mark.parametrize(
    ("times_us", "made_at_once"),
    [
        ([], True),
        ([0], True),
        ([0, 1, 999_999, 1_000_000, 127_000_000, 128_000_000], True),
        ([_NOW_US, _NOW_US + 60_000_000, _NOW_US + 60_250_001], True),
        ([_LAST_US - 1], True),
        ([_NOW_US, _LAST_US], False),
        ([-1], False),
        ([-60_000_000, _NOW_US], False),
    ],
)
def test_bytes_are_those_of_points(times_us: list[int], made_at_once: bool) -> None:
    values = [[0.0, -0.0, 1.5, -1e308, 5e-324, 42.0][place % 6] for place in range(len(times_us))]
    points = told(MetricPoints(np.array(times_us, np.int64), np.array(values, np.float64)))
    assert isinstance(points, Encoded) is made_at_once
    plain = [Point(from_micros(time_us), value) for time_us, value in zip(times_us, values, strict=True)]
    interval = timedelta(seconds=0.25)
    assert ENCODE(QueryMetricsResponse(points, interval)) == ENCODE(QueryMetricsResponse(plain, interval))  # type: ignore[arg-type]
    assert list(points) == plain
    assert [points[place] for place in range(len(points))] == plain
    assert list(points[1:]) == plain[1:]


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, _LAST_US - 1),
                st.sampled_from([_NOW_US, _NOW_US + 250_000, _NOW_US + 1, _NOW_US + 100_000]),
            ),
            st.floats(),
        ),
        max_size=4,
    )
)
def test_json_is_that_of_points(drawn: list[tuple[int, float]]) -> None:
    """To the last digit, as protobuf's own code prints it."""
    drawn.sort(key=itemgetter(0))
    times_us, values = [each[0] for each in drawn], [each[1] for each in drawn]
    points = told(MetricPoints(np.array(times_us, np.int64), np.array(values, np.float64)))
    assert isinstance(points, Encoded)
    parsed = GetMessageClass(DESCRIPTOR).FromString(points.wire)
    expected = MessageToDict(parsed, always_print_fields_with_no_presence=True)["points"]
    assert json.loads(points.json, parse_constant=pytest.fail) == expected


def test_it_takes_no_thread() -> None:
    """Threads are for what takes long."""
    times_us = np.arange(5_000, dtype=np.int64) * 60_000_000
    points = told(MetricPoints(times_us, times_us.astype(np.float64)))
    assert not is_long(QueryMetricsResponse(points, timedelta(minutes=1)))  # type: ignore[arg-type]
    assert is_long(QueryMetricsResponse(list(points), timedelta(minutes=1)))
