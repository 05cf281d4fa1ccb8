"""Labels of many rows as label-set ids, with work per distinct set instead of per row.

Rows of the same set are found by a signature that does not depend on the order of the labels; each distinct
signature is then read once, as a set of strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import randbits

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestor.model.labels import NO_LABELS, label_set
from ingestor.model.rules import Limits, label_problems

Words = npt.NDArray[np.uint64]

# Odd and secret, so that nobody can craft two sets with one signature.
_KEY, _VALUE, _FINAL = (np.uint64(randbits(64) | 1) for _ in range(3))


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """For each row its set's id and whether its labels keep the rules; `documents` maps ids to JSON text."""

    ids: npt.NDArray[np.int64]
    good: npt.NDArray[np.bool_]
    documents: dict[int, str]

    def filter(self, kept: npt.NDArray[np.bool_]) -> LabelColumn:
        """The column of those rows alone, with the sets that they name."""
        return self.take(np.flatnonzero(kept))

    def take(self, rows: npt.NDArray[np.int64]) -> LabelColumn:
        """The column of these rows, by number, with the sets that they name."""
        ids = self.ids[rows]
        named = set(np.unique(ids).tolist())
        documents = {id_: document for id_, document in self.documents.items() if id_ in named}
        return LabelColumn(ids, self.good[rows], documents)


def label_columns(labels: pa.MapArray, limits: Limits) -> LabelColumn | None:
    """None when no row has any label."""
    offsets = labels.offsets.to_numpy()
    offsets, start, end = offsets - offsets[0], offsets[0], offsets[-1]
    if start == end:
        return None
    keys, values = labels.keys.slice(start, end - start), labels.items.slice(start, end - start)
    signatures = _signatures(keys, values, offsets)
    _, first, row_sets = np.unique(signatures, return_index=True, return_inverse=True)
    ids = np.empty(len(first), np.int64)
    good = np.empty(len(first), np.bool_)
    documents: dict[int, str] = {}
    for number, row in enumerate(first.tolist()):
        begin, count = int(offsets[row]), int(offsets[row + 1] - offsets[row])
        names, texts = keys.slice(begin, count).to_pylist(), values.slice(begin, count).to_pylist()
        one = dict(zip(names, texts, strict=True))  # protobuf: of a key that comes twice the last one counts
        ids[number], good[number] = NO_LABELS, next(label_problems(one, limits), None) is None
        if one and good[number]:
            described = label_set(one)
            ids[number] = described.id
            documents[described.id] = described.document
    return LabelColumn(ids[row_sets], good[row_sets], documents)


def _signatures(keys: pa.StringArray, values: pa.StringArray, offsets: npt.NDArray[np.int32]) -> Words:
    """A 64-bit number a row: equal for equal lists of labels in any order, different for different ones but for
    a chance of 2^-64 a pair."""
    pairs = _codes(keys) * _KEY + _codes(values) * _VALUE
    pairs = _mixed(pairs)
    totals = np.concatenate(([np.uint64(0)], np.cumsum(pairs, dtype=np.uint64)))
    counts = (offsets[1:] - offsets[:-1]).astype(np.uint64)
    signatures: Words = totals[offsets[1:]] - totals[offsets[:-1]] + counts * _FINAL
    return signatures


def _codes(texts: pa.StringArray) -> Words:
    codes: Words = texts.dictionary_encode().indices.to_numpy().astype(np.uint64) + np.uint64(1)
    return codes


def _mixed(words: Words) -> Words:
    """splitmix64's finalizer (https://prng.di.unimi.it/splitmix64.c): sums of these don't coincide."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
