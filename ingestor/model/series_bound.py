"""How many distinct series a caller writes in an hour: which rows of a batch go beyond the bound.

It never refuses a row of a series that was written within the last hour, and it holds at most the bound's number of
hashes for each caller that wrote in that time. Pure: the present moment is given.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestor.model.batch import MetricBatch

Mask: TypeAlias = npt.NDArray[np.bool_]
Hashes: TypeAlias = npt.NDArray[np.uint64]

# A series is forgotten an hour after it was last written, and up to one slice later.
_SLICE_S = 300.0
_SLICES = 12
_NAMED = ("service_name", "metric_name", "label_set_id")
_ALL_BITS = (1 << 64) - 1


class Series(NamedTuple):
    """A batch's distinct series as hashes, without two alike, and which of them each row belongs to."""

    hashes: Hashes
    of_row: npt.NDArray[np.int64]


def series_of(batch: MetricBatch) -> Series:
    """The batch's. Strings are hashed once for each distinct series; the hashes are this process's own, so that
    nobody can send what collides."""
    columns = batch.columns
    codes: npt.NDArray[np.int64] = np.zeros(columns.num_rows, np.int64)
    for name in _NAMED:
        encoded = columns.column(name).dictionary_encode()
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
    _, first, of_row = np.unique(codes, return_index=True, return_inverse=True)
    distinct = columns.select(_NAMED).take(pa.array(first))
    names = zip(*(column.to_pylist() for column in distinct.columns), strict=True)
    return Series(np.array([hash(each) & _ALL_BITS for each in names], np.uint64), of_row)


class _Seen:
    """The series of one caller: their hashes in order, and in which slice of time each was written last."""

    def __init__(self) -> None:
        self.hashes: Hashes = np.empty(0, np.uint64)
        self.slices: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def forget(self, now: int) -> None:
        """What was not written for an hour."""
        kept = self.slices >= now - _SLICES
        if not kept.all():
            self.hashes, self.slices = self.hashes[kept], self.slices[kept]

    def admit(self, hashes: Hashes, now: int, series_max: int) -> Mask:
        """Which of these are known or find room; they are known from now on."""
        places = np.searchsorted(self.hashes, hashes)
        admitted: Mask = np.zeros(len(hashes), np.bool_)
        inside = places < len(self.hashes)
        admitted[inside] = self.hashes[places[inside]] == hashes[inside]
        self.slices[places[admitted]] = now
        new = np.flatnonzero(~admitted)[: max(0, series_max - len(self.hashes))]
        if len(new):
            new = new[np.argsort(hashes[new])]
            at = places[new]
            self.hashes = np.insert(self.hashes, at, hashes[new])
            self.slices = np.insert(self.slices, at, now)
            admitted[new] = True
        return admitted


class SeriesBound:
    """`series_max` for each caller that has no bound of its own; 0 for none."""

    def __init__(self, series_max: int) -> None:
        self._series_max = series_max
        self._seen: dict[str, _Seen] = {}
        self._slice = 0

    def bound(self, own_max: int | None) -> int:
        """Which bound holds for who has this one of its own; 0 for none."""
        return self._series_max if own_max is None else own_max

    def admit(self, caller: str, own_max: int | None, series: Series, now_s: float) -> Mask:
        """Which rows belong to series that are known or find room, of a caller with a bound."""
        now = int(now_s // _SLICE_S)
        if now != self._slice:
            self._slice = now
            for seen in self._seen.values():
                seen.forget(now)
            self._seen = {name: seen for name, seen in self._seen.items() if len(seen.hashes)}
        seen = self._seen.setdefault(caller, _Seen())
        return seen.admit(series.hashes, now, self.bound(own_max))[series.of_row]
