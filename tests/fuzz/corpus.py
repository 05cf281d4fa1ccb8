"""What fuzzing starts from: messages of every rpc, as bytes and as JSON, good ones and such as a rule refuses.

They are made once from a seed; mutations are what makes one request unlike another.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from tests.columns import fuzz
from tests.columns.fuzz import NAMES, NOW, NUMBERS
from tests.columns.metrics import descriptor, request, series_request

LOG_METRIC, LOG_METRICS, WRITE_SERIES = "LogMetric", "LogMetrics", "WriteSeries"
STREAM_METRICS, QUERY_METRICS, LIST_SERIES = "StreamMetrics", "QueryMetrics", "ListSeries"
TAIL_METRICS = "TailMetrics"
METHODS = (LOG_METRIC, LOG_METRICS, WRITE_SERIES, STREAM_METRICS, QUERY_METRICS, LIST_SERIES, TAIL_METRICS)
# How often each is called. What reads has to ask the database, which is not what is fuzzed.
WEIGHTS = (400, 250, 250, 80, 8, 8, 2)
_MESSAGES = 300
_CROOKED = 0.3
_ROWS_MAX = 6
_ACKS = [*[0] * 20, 1, 1, 2, 3, 99]
_IDS = [*[""] * 15, "again", "x" * 128, "y" * 129, "\n"]
_AGGREGATIONS = ["", "avg", "p95", "last", "median", "\0"]


def messages(rng: random.Random) -> dict[str, list[bytes]]:
    """Protobuf bytes of each rpc's requests."""
    return {method: [_message(rng, method) for _ in range(_MESSAGES)] for method in METHODS}


def documents(rng: random.Random) -> dict[str, list[bytes]]:
    """JSON of each rpc's requests that have a body."""
    made = {
        LOG_METRIC: [{**_in_json(metric(rng)), **_terms(rng)} for _ in range(_MESSAGES)],
        LOG_METRICS: [_batch(rng) for _ in range(_MESSAGES)],
        WRITE_SERIES: [_points(rng) for _ in range(_MESSAGES)],
    }
    texts = {method: [json.dumps(each).encode() for each in all_] for method, all_ in made.items()}
    batches = texts[LOG_METRICS]
    texts[STREAM_METRICS] = [b"\n".join(rng.choices(batches, k=rng.randrange(5))) for _ in range(_MESSAGES)]
    return texts


def _message(rng: random.Random, method: str) -> bytes:
    if method in (LOG_METRICS, STREAM_METRICS):
        return request(*(metric(rng) for _ in range(rng.randrange(_ROWS_MAX)))) + _terms_bytes(rng, 2, 3)
    if method == WRITE_SERIES:
        return series_request(*(series(rng) for _ in range(rng.randrange(_ROWS_MAX)))) + _terms_bytes(
            rng, 2, 3
        )
    made: Any = GetMessageClass(descriptor(f"{method}Request"))()
    if method == LOG_METRIC:
        made.MergeFromString(_one(metric(rng)))
        return bytes(made.SerializeToString()) + _terms_bytes(rng, 6, 7)
    if method == LIST_SERIES:
        made.service_prefix, made.metric_prefix = rng.choice(NAMES), rng.choice(NAMES)
        made.page_size, made.page_token = rng.choice([0, 1, 1000, -1, 2**31 - 1]), rng.choice(NAMES)
    else:
        made.service_name, made.metric_name = rng.choice(NAMES), rng.choice(NAMES)
    if method == QUERY_METRICS:
        made.start.seconds, made.end.seconds = rng.choice([0, 2**40]), rng.choice([0, 3600, -(2**62)])
        made.interval.seconds, made.interval.nanos = rng.choice([0, 60, -1, 2**62]), rng.choice([0, 1, -1])
        made.aggregation = rng.choice(_AGGREGATIONS)
    return bytes(made.SerializeToString())


def metric(rng: random.Random) -> dict[str, Any]:
    """Fields of a metric, mostly such as are taken."""
    if rng.random() < _CROOKED:
        return fuzz.metric(rng)
    fields: dict[str, Any] = {
        "service_name": f"s{rng.randrange(9)}",
        "metric_name": "m",
        "value": rng.random(),
    }
    if rng.random() < 0.5:
        fields["time"] = (NOW + rng.randrange(60), 1_000)
    if rng.random() < 0.3:
        fields["labels"] = {"region": rng.choice("abc")}
    return fields


def series(rng: random.Random) -> dict[str, Any]:
    """The same of a series."""
    if rng.random() < _CROOKED:
        return fuzz.series(rng)
    fields = metric(rng)
    fields.pop("time", None)
    count = rng.randrange(1, 5)
    fields["time_unix_nano"] = [NOW * 10**9 + number for number in range(count)]
    fields["value"] = [rng.random() for _ in range(count)]
    return fields


def _one(fields: dict[str, Any]) -> bytes:
    """A metric alone: that of a batch of one, less the batch's tag and length."""
    batch: Any = GetMessageClass(descriptor())()
    batch.MergeFromString(request(fields))
    return bytes(batch.metrics[0].SerializeToString())


def _terms_bytes(rng: random.Random, ack_field: int, id_field: int) -> bytes:
    """An ack level and a request_id, some of which no server gives or takes."""
    request_id = rng.choice(_IDS).encode()
    ack = bytes([ack_field << 3, rng.choice(_ACKS)])
    return ack + (bytes([id_field << 3 | 2]) + _varint(len(request_id)) + request_id if request_id else b"")


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])


def _terms(rng: random.Random) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    if (ack := rng.choice(_ACKS)) or rng.random() < 0.1:
        terms["ack"] = ack
    if request_id := rng.choice(_IDS):
        terms["requestId"] = request_id
    return terms


def _batch(rng: random.Random) -> dict[str, Any]:
    return {"metrics": [_in_json(metric(rng)) for _ in range(rng.randrange(_ROWS_MAX))], **_terms(rng)}


def _points(rng: random.Random) -> dict[str, Any]:
    return {"series": [_in_json(series(rng)) for _ in range(rng.randrange(_ROWS_MAX))], **_terms(rng)}


def _in_json(fields: dict[str, Any]) -> dict[str, Any]:
    made = dict(fields)
    if "time" in made:
        seconds, nanos = made["time"]
        sensible = 0 <= seconds < 2**32
        moment = datetime.fromtimestamp(seconds if sensible else 0, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        made["time"] = f"{moment}.{nanos}Z"
    if "time_unix_nano" in made:
        made["timeUnixNano"] = [str(each) for each in made.pop("time_unix_nano")]
    for plain, camel in (("service_name", "serviceName"), ("metric_name", "metricName")):
        if plain in made:
            made[camel] = made.pop(plain)
    return made


assert float("inf") in NUMBERS  # json.dumps writes Infinity, which is no JSON and has to be refused
