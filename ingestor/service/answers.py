"""What a bulk request is told of rows that were not stored, and how that is kept for whoever asks again.

It decides nothing: which rows are good, rules and database say.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter

import orjson
from ingestor_api.analytics.v1 import RejectedMetric

from ingestor.errors import VIOLATIONS_TOLD_MAX, FieldViolation, Invalid
from ingestor.model import DeadRow
from ingestor.model.columns import Rejected
from ingestor.service.rejections import collected

# Of one metric of a batch; there may be 50,000 of them.
_REASONS_TOLD_MAX = 3
_INDEX = attrgetter("index")


def told(rejected: Iterable[Rejected]) -> Iterator[RejectedMetric]:
    return (RejectedMetric(index=position, reason=_reason(violations)) for position, violations in rejected)


def encoded(rejected: Sequence[RejectedMetric]) -> bytes:
    """As the journal and the database keep them, to answer a repetition."""
    if not rejected:
        return b""
    return zlib.compress(orjson.dumps([[each.index, each.reason] for each in rejected]), level=1)


def decoded(rejected: bytes) -> Sequence[RejectedMetric]:
    if not rejected:
        return []
    listed = orjson.loads(zlib.decompress(rejected))
    made = (RejectedMetric(index=index, reason=reason) for index, reason in listed)
    return collected(made, len(listed))


def with_dead(
    rejected: Sequence[RejectedMetric], dead: Sequence[DeadRow], rows: int
) -> Sequence[RejectedMetric]:
    """`dead` counts the rows that were taken, answers count all `rows` of the request."""
    if not dead:
        return rejected
    bad = {each.index for each in rejected}
    taken = [position for position in range(rows) if position not in bad]
    refused = [
        RejectedMetric(
            index=taken[each.row], reason=f"{each.reason} ({each.sqlstate}): it is in dead_letters now"
        )
        for each in dead
    ]
    refused.sort(key=_INDEX)
    return collected(merge(rejected, refused, key=_INDEX), len(bad) + len(refused))


def _reason(violations: Sequence[FieldViolation]) -> str:
    told = "; ".join(map(str, violations[:_REASONS_TOLD_MAX]))
    more = len(violations) - _REASONS_TOLD_MAX
    return f"{told}; and {more} more" if more > 0 else told


def nothing_right(rejected: Iterable[Rejected], count: int, list_name: str) -> Invalid:
    """`count` are all that were rejected, of which the first few are looked at."""

    def told() -> Iterator[FieldViolation]:
        for position, violations in rejected:
            yield from (violation.within(f"{list_name}[{position}]") for violation in violations)

    first = list(islice(told(), VIOLATIONS_TOLD_MAX))
    message = f"none of the {count} {list_name} can be taken: {first[0]}" if count > 1 else str(first[0])
    return Invalid(message, first)
