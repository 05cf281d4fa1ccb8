"""What a request asks for, as 16 bytes: two requests with one name are the same if these are.

It sees what was decoded, before anything was checked or a missing time was filled in; so it does not depend on the
protocol, on the order of labels or fields, or on when the request came. It refuses nothing. Of labels that break a
rule it sees only that they do: such rows are not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np
import pyarrow as pa

from ingestor.model.labels import NO_LABELS, label_set
from ingestor.model.rules import Limits, MetricFields, label_problems
from ingestor.timestamps import microseconds

SIZE_BYTES = 16


def fingerprint(method: str, columns: Sequence[pa.Array]) -> bytes:
    """Of a call of `method` with these columns of strings and numbers, some of which may be null."""
    digest = blake2b(method.encode(), digest_size=SIZE_BYTES)
    for column in columns:
        for part in _parts(column):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
    return digest.digest()


def rows_fingerprint(method: str, metrics: Sequence[MetricFields], limits: Limits) -> bytes:
    """The same for metrics one by one."""
    times = [None if metric.time is None else microseconds(metric.time) for metric in metrics]
    return fingerprint(
        method,
        [
            pa.array([metric.service_name for metric in metrics], pa.string()),
            pa.array([metric.metric_name for metric in metrics], pa.string()),
            pa.array([metric.value for metric in metrics], pa.float64()),
            pa.array(times, pa.int64()),
            label_ids([metric.labels for metric in metrics], limits),
        ],
    )


class SeriesFields(Protocol):
    """Points of one series, as the API has them."""

    @property
    def service_name(self) -> str: ...
    @property
    def metric_name(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def time_unix_nano(self) -> list[int]: ...
    @property
    def value(self) -> list[float]: ...


def series_fingerprint(method: str, series: Sequence[SeriesFields], limits: Limits) -> bytes:
    """The same for series one by one."""
    return fingerprint(
        method,
        [
            pa.array([each.service_name for each in series], pa.string()),
            pa.array([each.metric_name for each in series], pa.string()),
            label_ids([each.labels for each in series], limits),
            pa.array([len(each.time_unix_nano) for each in series], pa.int32()),
            pa.array([nanos for each in series for nanos in each.time_unix_nano], pa.int64()),
            pa.array([value for each in series for value in each.value], pa.float64()),
        ],
    )


def label_ids(sets: Sequence[dict[str, str]], limits: Limits) -> pa.Array:
    """The ids of these sets of labels; those that break a rule count as none."""
    ids = [
        label_set(labels).id if labels and not any(label_problems(labels, limits)) else NO_LABELS
        for labels in sets
    ]
    return pa.array(ids, pa.int64())


def _parts(column: pa.Array) -> Iterator[bytes]:
    if pa.types.is_string(column.type):
        _, offsets_buffer, data = column.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
        yield (offsets[1:] - offsets[:-1]).tobytes()
        yield b"" if data is None else bytes(data[offsets[0] : offsets[-1]])
    else:
        yield column.is_valid().to_numpy(zero_copy_only=False).tobytes()
        yield column.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
