"""Labels of many rows as label-set ids, with work per distinct set instead of per row.

Rows of the same set are found by a signature, which does not depend on the order of the labels unless a name comes
twice in one row; each distinct signature is then read once, as a set of strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import randbits
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestor.model.labels import NO_LABELS, label_set
from ingestor.model.rules import Limits, label_problems

Words = npt.NDArray[np.uint64]

# Odd and secret, so that nobody can craft two sets with one signature.
_KEY, _VALUE, _PLACE, _FINAL = (np.uint64(randbits(64) | 1) for _ in range(4))


# Of a table of rows by names.
_TABLE_MAX = 1 << 20
# What a remembered set takes beside its bytes, and what all of them may take.
_KNOWN_BYTES, _KNOWN_BYTES_MAX = 600, 16 * 1024**2


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


class _Meaning(NamedTuple):
    """What a row's labels mean: their set's id, its document (None for no labels or bad ones), and whether they are
    good."""

    id: int
    document: str | None
    good: bool


# The bytes of a row's names and values, and their lengths: equal for equal lists of labels alone.
_Key: TypeAlias = tuple[bytes, bytes, bytes, bytes]


class LabelReader:
    """Reads columns of labels by these limits; what a list of labels means is remembered between requests."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[_Key, _Meaning] = {}
        self._known_bytes = 0
        self._counting = Lock()  # large requests are checked in threads

    def read(self, labels: pa.MapArray) -> LabelColumn | None:
        """None when no row has any label."""
        offsets = labels.offsets.to_numpy()
        offsets, start, end = offsets - offsets[0], offsets[0], offsets[-1]
        if start == end:
            return None
        names, values = labels.keys.slice(start, end - start), labels.items.slice(start, end - start)
        _, first, row_sets = np.unique(
            _signatures(names, values, offsets), return_index=True, return_inverse=True
        )
        begins, ends = offsets[first], offsets[first + 1]
        keys = zip(*_keys(names, begins, ends), *_keys(values, begins, ends), strict=True)
        meanings = []
        for begin, stop, key in zip(begins.tolist(), ends.tolist(), keys, strict=True):
            meaning = self._known.get(key)
            if meaning is None:
                length = stop - begin
                meaning = self._meaning(names.slice(begin, length), values.slice(begin, length))
                self._remember(key, meaning)
            meanings.append(meaning)
        ids = np.array([meaning.id for meaning in meanings], np.int64)
        good = np.array([meaning.good for meaning in meanings], np.bool_)
        documents = {meaning.id: meaning.document for meaning in meanings if meaning.document is not None}
        return LabelColumn(ids[row_sets], good[row_sets], documents)

    def _meaning(self, names: pa.StringArray, values: pa.StringArray) -> _Meaning:
        # protobuf: of a key that comes twice the last one counts
        labels = dict(zip(names.to_pylist(), values.to_pylist(), strict=True))
        good = next(label_problems(labels, self._limits), None) is None
        if not labels or not good:
            return _Meaning(NO_LABELS, None, good)
        described = label_set(labels)
        return _Meaning(described.id, described.document, good)

    def _remember(self, key: _Key, meaning: _Meaning) -> None:
        size = _KNOWN_BYTES + sum(map(len, key)) + len(meaning.document or "")
        with self._counting:
            if self._known_bytes + size > _KNOWN_BYTES_MAX:
                self._known.clear()
                self._known_bytes = 0
            self._known[key] = meaning
            self._known_bytes += size


def _keys(
    texts: pa.StringArray, begins: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]
) -> tuple[list[bytes], list[bytes]]:
    """For each of these ranges of texts, their bytes and their lengths."""
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    content = b"" if data is None else memoryview(data)[offsets[0] : offsets[-1]].tobytes()
    offsets = offsets - offsets[0]
    lengths = (offsets[1:] - offsets[:-1]).tobytes()
    size = offsets.itemsize
    return (
        [content[a:b] for a, b in zip(offsets[begins].tolist(), offsets[ends].tolist(), strict=True)],
        [lengths[size * a : size * b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)],
    )


def _signatures(keys: pa.StringArray, values: pa.StringArray, offsets: npt.NDArray[np.int32]) -> Words:
    """A 64-bit number a row: equal for equal sets of labels, different for different ones but for a chance of 2^-64
    a pair."""
    counts = offsets[1:] - offsets[:-1]
    names = _codes(keys)
    pairs = names * _KEY + _codes(values) * _VALUE
    if _may_come_twice(names, counts):
        # Of a name that comes twice the last one counts, so order does matter.
        places = np.arange(len(names)) - np.repeat(offsets[:-1], counts)
        pairs += places.astype(np.uint64) * _PLACE
    pairs = _mixed(pairs)
    totals = np.concatenate(([np.uint64(0)], np.cumsum(pairs, dtype=np.uint64)))
    signatures: Words = totals[offsets[1:]] - totals[offsets[:-1]] + counts.astype(np.uint64) * _FINAL
    return signatures


def _may_come_twice(names: Words, counts: npt.NDArray[np.int32]) -> bool:
    """Whether a name comes twice in one row; also when there are too many different ones to tell cheaply."""
    different = int(names.max()) + 1
    if different * len(counts) > _TABLE_MAX:
        return True
    places = np.repeat(np.arange(len(counts)), counts) * different + names.astype(np.int64)
    return bool(np.bincount(places).max() > 1)


def _codes(texts: pa.StringArray) -> Words:
    codes: Words = texts.dictionary_encode().indices.to_numpy().astype(np.uint64) + np.uint64(1)
    return codes


def _mixed(words: Words) -> Words:
    """splitmix64's finalizer (https://prng.di.unimi.it/splitmix64.c): sums of these don't coincide."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
