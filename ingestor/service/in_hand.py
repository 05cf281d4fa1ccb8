"""What streams have in memory beside the queue while they wait: there may be a hundred of them on each connection.

It refuses who would be too much for all of them together; who waits already is left in peace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ingestor.errors import Overloaded

_BYTES_MAX = 64 * 1024**2
_RETRY_AFTER_S = 1.0


class InHand:
    """Of all streams that wait for the same; so many bytes at most."""

    def __init__(self, bytes_max: int = _BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0

    @contextmanager
    def held(self, size_bytes: int) -> Iterator[None]:
        """Around what a stream waits for, with so many bytes in hand. Raises Overloaded."""
        if self._bytes + size_bytes > self._bytes_max:
            msg = "too many streams wait with what they were sent: nothing was taken of this request"
            raise Overloaded(msg, _RETRY_AFTER_S)
        self._bytes += size_bytes
        try:
            yield
        finally:
            self._bytes -= size_bytes
