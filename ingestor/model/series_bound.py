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


class Claim(NamedTuple):
    """The room that a batch's new series took. `number` is the batch's."""

    caller: str
    hashes: Hashes
    number: int


class _Seen:
    """The series of one caller: their hashes in order, and in which slice of time each was written last, and by
    which batch."""

    def __init__(self) -> None:
        self.hashes: Hashes = np.empty(0, np.uint64)
        self.slices: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.batches: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def forget(self, now: int) -> None:
        """What was not written for an hour."""
        kept = self.slices >= now - _SLICES
        if not kept.all():
            self._keep(kept)

    def give_back(self, hashes: Hashes, batch: int) -> None:
        """Those of them that no later batch has written."""
        places, known = self._places(hashes)
        gone = places[known]
        kept = np.ones(len(self.hashes), np.bool_)
        kept[gone[self.batches[gone] == batch]] = False
        self._keep(kept)

    def admit(self, hashes: Hashes, now: int, series_max: int, batch: int) -> tuple[Mask, Hashes]:
        """Which of these are known or find room, and those that were new; they are known from now on."""
        places, admitted = self._places(hashes)
        self.slices[places[admitted]] = now
        self.batches[places[admitted]] = batch
        new = np.flatnonzero(~admitted)[: max(0, series_max - len(self.hashes))]
        if len(new):
            new = new[np.argsort(hashes[new])]
            at = places[new]
            self.hashes = np.insert(self.hashes, at, hashes[new])
            self.slices = np.insert(self.slices, at, now)
            self.batches = np.insert(self.batches, at, batch)
            admitted[new] = True
        return admitted, hashes[new]

    def _places(self, hashes: Hashes) -> tuple[npt.NDArray[np.int64], Mask]:
        """Where each of them stands or would, and which are known."""
        places = np.searchsorted(self.hashes, hashes)
        known: Mask = np.zeros(len(hashes), np.bool_)
        inside = places < len(self.hashes)
        known[inside] = self.hashes[places[inside]] == hashes[inside]
        return places, known

    def _keep(self, kept: Mask) -> None:
        self.hashes, self.slices, self.batches = self.hashes[kept], self.slices[kept], self.batches[kept]


class SeriesBound:
    """`series_max` for each caller that has no bound of its own; 0 for none."""

    def __init__(self, series_max: int) -> None:
        self._series_max = series_max
        self._seen: dict[str, _Seen] = {}
        self._slice = 0
        self._batches = 0

    def bound(self, own_max: int | None) -> int:
        """Which bound holds for who has this one of its own; 0 for none."""
        return self._series_max if own_max is None else own_max

    def admit(self, caller: str, own_max: int | None, series: Series, now_s: float) -> tuple[Mask, Claim]:
        """Which rows belong to series that are known or find room, of a caller with a bound; and what is to be
        given back should they not be taken after all."""
        now = int(now_s // _SLICE_S)
        if now != self._slice:
            self._slice = now
            for seen in self._seen.values():
                seen.forget(now)
            self._seen = {name: seen for name, seen in self._seen.items() if len(seen.hashes)}
        seen = self._seen.setdefault(caller, _Seen())
        self._batches += 1
        admitted, new = seen.admit(series.hashes, now, self.bound(own_max), self._batches)
        return admitted[series.of_row], Claim(caller, new, self._batches)

    def give_back(self, claim: Claim) -> None:
        """Nothing of that batch was taken: what it alone wrote is new again."""
        if len(claim.hashes) and (seen := self._seen.get(claim.caller)) is not None:
            seen.give_back(claim.hashes, claim.number)
