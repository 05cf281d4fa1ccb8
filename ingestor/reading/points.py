"""Points of an answer as protobuf's bytes and as JSON, made of whole columns: an object for each would cost as much
as a query.

It only knows times from 1970 on; what is told of others is made one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import orjson
from ingestor_api.analytics.v1 import Point

from ingestor.encoded import Encoded
from ingestor.model.questions import MetricPoints

_SECOND_US = 1_000_000
# What five bytes of a varint hold, in the year 3058.
_SECONDS_END = 2**35
_VARINT_BYTES = 5
# QueryMetricsResponse.points=1 {time=1 {seconds=1 nanos=2} value=2}: tags and lengths, then what they are of.
_HEAD = bytes([0x0A, 23, 0x0A, 12, 0x08])
_NANOS_TAG, _VALUE_TAG = 0x10, 0x11
_NOT_FINITE = {"nan": b'"NaN"', "inf": b'"Infinity"', "-inf": b'"-Infinity"'}
_WIRE = np.dtype(
    [
        ("head", "V5"),
        ("seconds", "u1", _VARINT_BYTES),
        ("nanos_tag", "u1"),
        ("nanos", "u1", _VARINT_BYTES),
        ("value_tag", "u1"),
        ("value", "<f8"),
    ]
)


class EncodedPoints(Encoded[Point]):
    """All points of an answer."""

    def __init__(self, points: MetricPoints) -> None:
        self._points = points

    @property
    def wire(self) -> bytes:
        """As QueryMetricsResponse has them."""
        seconds, micros = np.divmod(self._points.times_us, _SECOND_US)
        wire = np.zeros(len(self._points), _WIRE)
        wire["head"] = np.void(_HEAD)
        wire["seconds"] = _varints(seconds)
        wire["nanos_tag"] = _NANOS_TAG
        wire["nanos"] = _varints(micros * 1_000)
        wire["value_tag"] = _VALUE_TAG
        wire["value"] = self._points.values
        return wire.tobytes()

    @property
    def json(self) -> bytes:
        """As an array of objects."""
        times, values = _times(self._points.times_us), _values(self._points.values)
        return b"[%b]" % b",".join(
            [b'{"time":"%bZ","value":%b}' % point for point in zip(times, values, strict=True)]
        )

    def __len__(self) -> int:
        return len(self._points)

    @overload
    def __getitem__(self, place: int) -> Point: ...
    @overload
    def __getitem__(self, place: slice) -> list[Point]: ...
    def __getitem__(self, place: int | slice) -> Point | list[Point]:
        if isinstance(place, slice):
            return [Point(*point) for point in self._points[place]]
        return Point(*self._points[place])

    def __iter__(self) -> Iterator[Point]:
        return (Point(*point) for point in self._points)


def told(points: MetricPoints) -> Sequence[Point]:
    """The points of an answer."""
    times = points.times_us
    if len(times) and not (times[0] >= 0 and times[-1] < _SECONDS_END * _SECOND_US):
        return [Point(*point) for point in points]
    return EncodedPoints(points)


def _varints(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Each in five bytes; smaller ones have empty groups at their end, which every parser takes."""
    shifts = 7 * np.arange(_VARINT_BYTES)
    groups = (numbers[:, None] >> shifts) & 0x7F
    groups[:, :-1] |= 0x80
    return groups.astype(np.uint8)


def _times(times_us: npt.NDArray[np.int64]) -> list[bytes]:
    """As proto3 JSON has them: with no, three or six digits behind the point."""
    if not len(times_us):
        return []
    texts = orjson.dumps(times_us.astype("datetime64[us]"), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(
        b'","'
    )
    if not (times_us % _SECOND_US).any():
        return texts
    return [text.removesuffix(b"000") if b"." in text else text for text in texts]


def _values(values: npt.NDArray[np.float64]) -> list[bytes]:
    """As proto3 JSON has doubles."""
    texts = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if len(values) else []
    for place in np.flatnonzero(~np.isfinite(values)):
        texts[place] = _NOT_FINITE[str(values[place])]
    return texts
