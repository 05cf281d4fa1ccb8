"""What a request asks for beside its metrics: what it waits for, and to be taken once under its name.

It refuses what this server can't give, and never gives less than was asked for. Whether a name was seen before is
not its affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
from ingestor_api.analytics.v1 import AckLevel

from ingestor.caller import CALLER
from ingestor.errors import FieldViolation, Invalid
from ingestor.model import Ack, Request
from ingestor.model.rules import name_problem
from ingestor.telemetry import Telemetry

_REQUEST_ID_BYTES_MAX = 128
_ACKS: Mapping[int, Ack] = {ack.value: ack for ack in Ack}


@dataclass(frozen=True, slots=True)
class AckPolicy:
    """`default` is what requests wait for that don't say so; a commit they wait for `commit_wait_max_s` seconds at
    most, unless the caller has said how long."""

    default: Ack
    commit_wait_max_s: float


@dataclass(frozen=True, slots=True)
class Call:
    """What a bulk request waits for, its name if it has one, and how many rows it has, good and bad. Without
    `waits_for_room` it is refused when there is none within the admission wait."""

    ack: Ack
    request: Request | None
    rows: int
    waits_for_room: bool = False
    size_bytes: int = 0

    def patient(self, size_bytes: int) -> Call:
        """The same, but it waits for room, and for its key, with so many bytes in hand."""
        return replace(self, waits_for_room=True, size_bytes=size_bytes)


class Terms:
    """`default` is what requests wait for that don't say so, one of `levels`, which are all that can be given."""

    def __init__(self, default: Ack, levels: frozenset[Ack], telemetry: Telemetry) -> None:
        self._default = default
        self._levels = levels
        self._telemetry = telemetry

    def call(self, ack: int, request_id: str, rows: int, fingerprint: Callable[[], bytes]) -> Call:
        """A bulk request's, which has so many rows. Raises Invalid."""
        return Call(self.ack(ack, rows), self.named(request_id, rows, fingerprint), rows)

    def ack(self, level: int, rows: int) -> Ack:
        """What a request waits for that asks for this AckLevel. Raises Invalid for one that we can't give."""
        if level == AckLevel.UNSPECIFIED:
            return self._default
        ack = _ACKS.get(level)
        if ack is not None and ack in self._levels:
            return ack
        self._telemetry.count_rejected(rows)
        offered = " and ".join(each.name for each in sorted(self._levels))
        problem = (
            f"is no AckLevel: {int(level)}"
            if ack is None
            else f"can't be {ack.name}: this server offers {offered}"
        )
        raise Invalid.fields([FieldViolation("ack", problem)])

    def named(self, request_id: str, rows: int, fingerprint: Callable[[], bytes]) -> Request | None:
        """The request under its name; None without one. Raises Invalid for a bad name."""
        if not request_id:
            return None
        if problem := name_problem(request_id, _REQUEST_ID_BYTES_MAX):
            self._telemetry.count_rejected(rows)
            raise Invalid.fields([FieldViolation("request_id", problem)])
        return Request(CALLER.get().id, request_id, fingerprint(), rows)


def asked_in(columns: pa.RecordBatch) -> tuple[int, str]:
    """The AckLevel and request_id of a request that was decoded to columns."""
    return columns.column("ack")[0].as_py(), columns.column("request_id")[0].as_py()
