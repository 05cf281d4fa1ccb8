"""What became of every metric of a run, in a byte a request and a bit a metric, so that ten million can be
checked in a few megabytes.

It holds no rows: those follow from their sequence numbers.
"""

from __future__ import annotations

from ingestor.loadgen.answers import Answer, Kind
from ingestor.loadgen.schedule import Request


class SeqSet:
    """A set of sequence numbers as a bitmap that grows to the largest of them."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, seq: int) -> bool:
        """True if it was not in the set yet."""
        position, bit = seq >> 3, 1 << (seq & 7)
        if position >= len(self._bits):
            self._bits.extend(bytes(position + 1 - len(self._bits) + (len(self._bits) >> 2)))
        if self._bits[position] & bit:
            return False
        self._bits[position] |= bit
        return True

    def __contains__(self, seq: int) -> bool:
        position = seq >> 3
        return position < len(self._bits) and bool(self._bits[position] & 1 << (seq & 7))


class Outcomes:
    """Answers by sequence number."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._requests = bytearray()
        self.end = 0  # one past the largest sequence number of a request that was sent
        self._rejected = SeqSet()

    def record(self, request: Request, answer: Answer) -> None:
        missing = request.index + 1 - len(self._requests)
        if missing > 0:
            self._requests.extend(bytes(missing))
        self._requests[request.index] = answer.kind
        self.end = max(self.end, request.first + request.size)
        for index, _ in answer.rejected:
            self._rejected.add(request.first + index)

    def of(self, seq: int) -> int:
        """The Kind of metric `seq`, as a plain int: this runs once a stored row."""
        if not 0 <= seq < self.end:
            return Kind.UNSENT
        kind = self._requests[seq // self._batch]
        if kind == Kind.ACKNOWLEDGED and seq in self._rejected:
            return Kind.REJECTED
        return kind
