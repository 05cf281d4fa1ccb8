"""Answers of plain types are printed as protobuf's own code prints them; of others they are left to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.transport.rpc import Descriptors
from ingestor.transport.transcoding.json_body import print_json
from ingestor.transport.transcoding.plain_json import plain_printer
from tests.transport.library.service import Library

_SECONDS = st.integers(-62_135_596_800, 253_402_300_799)
_NANOS = st.one_of(st.sampled_from([0, 5, 1_000, 120_000_000, 999_999_999]), st.integers(0, 999_999_999))
_TIMES = st.builds(lambda seconds, nanos: {"seconds": seconds, "nanos": nanos}, _SECONDS, _NANOS)
_VALUES = st.one_of(st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 1e300]), st.floats())
_LABELS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)
_METRIC = st.fixed_dictionaries(
    {}, optional={"service_name": st.text(), "value": _VALUES, "time": _TIMES, "labels": _LABELS}
)
_POINT = st.fixed_dictionaries({}, optional={"time": _TIMES, "value": _VALUES})
_SERIES = st.fixed_dictionaries({}, optional={"service_name": st.text(), "first_time": _TIMES})
ANSWERS: Mapping[str, dict[str, Any]] = {
    "QueryMetricsResponse": {
        "points": st.lists(_POINT, max_size=3),
        "interval": st.sampled_from([{"seconds": 60}, {"seconds": -1, "nanos": -500_000_000}]),
    },
    "ListSeriesResponse": {"series": st.lists(_SERIES, max_size=3), "next_page_token": st.text()},
    "TailMetricsResponse": {
        "metrics": st.lists(_METRIC, max_size=3),
        "dropped": st.integers(0, 2**64 - 1),
    },
    "LogMetricResponse": {"success": st.booleans()},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_plain_answers(name: str) -> None:
    """To the last digit, whatever is in them and whatever is not."""
    pool = Descriptors.of_package("ingestor_api").pool
    descriptor = pool.FindMessageTypeByName(f"analytics.v1.{name}")
    message_class, plain = GetMessageClass(descriptor), plain_printer(descriptor)
    assert plain is not None

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries({}, optional=ANSWERS[name]))
    def check(fields: dict[str, Any]) -> None:
        message = message_class(**fields)
        assert json.loads(print_json(message, pool, plain=plain)) == json.loads(
            print_json(message, pool), parse_constant=pytest.fail
        )

    check()


def test_others_are_left_alone(library: Library) -> None:
    """What holds enums, bytes, wrappers or itself."""
    descriptor: Any = library.message("Everything").DESCRIPTOR  # upb's own class, alike
    assert plain_printer(descriptor) is None
