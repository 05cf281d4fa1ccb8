"""A metric's labels as one value with an id of its own, so that rows carry 8 bytes and not a document.

The id is computed, never allocated: two gateways give the same set the same id without asking anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

NO_LABELS = 0
"""The id of the empty set; such a row needs no entry in `label_sets`."""

# Together at most some 50 MB, if somebody sends nothing but large sets that are just small enough.
_CACHED_SETS_MAX = 32_768
_CACHED_SET_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class LabelSet:
    """`id` is a positive 63-bit integer (PostgreSQL's bigint is signed); `document` the set as JSON text,
    names sorted."""

    id: int
    document: str


def label_set(labels: Mapping[str, str]) -> LabelSet:
    """The set of these labels, whatever their order. Must not be empty: that is `NO_LABELS`."""
    items = tuple(sorted(labels.items()))
    small = sum(len(name) + len(value) for name, value in items) <= _CACHED_SET_CHARACTERS_MAX
    return _cached_label_set(items) if small else _label_set(items)


def _label_set(items: tuple[tuple[str, str], ...]) -> LabelSet:
    document = json.dumps(dict(items), ensure_ascii=False, separators=(",", ":"))
    digest = blake2b(document.encode(), digest_size=8).digest()
    # 63 bits: among a million sets the chance that any two share an id is 5e-8. 0 means "no labels".
    return LabelSet((int.from_bytes(digest, "big") >> 1) or 1, document)


_cached_label_set = lru_cache(maxsize=_CACHED_SETS_MAX)(_label_set)
