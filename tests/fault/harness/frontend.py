"""Reads what a client sends to PostgreSQL, message by message, as far as a fault has to know.

It keeps the bytes as they are: what it gives back, joined, is what it was fed. Rows that are copied pass in
pieces, statements whole.
"""

from __future__ import annotations

import re
from typing import NamedTuple

STARTUP, QUERY, PARSE, COPY_DATA, COPY_DONE = b"", b"Q", b"P", b"d", b"c"
# The codes of SSLRequest and GSSENCRequest, after which the client begins once more.
_ENCRYPTION = {80877103, 80877104}
_HEADER_BYTES = 5
_COMMIT = re.compile(rb"\bCOMMIT\b", re.IGNORECASE)


class Part(NamedTuple):
    """A message of this kind, or a piece of one."""

    kind: bytes
    data: bytes

    @property
    def commits(self) -> bool:
        """Whether it tells the server to commit."""
        return self.kind in {QUERY, PARSE} and _COMMIT.search(self.data, _HEADER_BYTES) is not None


class Frontend:
    """One connection's messages."""

    def __init__(self) -> None:
        self._unread = b""
        self._starting = True
        self._left_bytes = 0
        self._kind = STARTUP

    def feed(self, data: bytes) -> list[Part]:
        """The messages that end in these bytes, and pieces of rows."""
        self._unread += data
        parts = []
        while part := self._next():
            parts.append(part)
        return parts

    def _next(self) -> Part | None:
        if self._left_bytes:
            return self._take(self._kind, min(self._left_bytes, len(self._unread)))
        if self._starting:
            return self._startup()
        if len(self._unread) < _HEADER_BYTES:
            return None
        kind = self._unread[:1]
        size = 1 + int.from_bytes(self._unread[1:5])
        if kind == COPY_DATA:
            self._kind, self._left_bytes = kind, size
            return self._take(kind, min(size, len(self._unread)))
        return self._take(kind, size) if len(self._unread) >= size else None

    def _startup(self) -> Part | None:
        if len(self._unread) < 8:
            return None
        size, code = int.from_bytes(self._unread[:4]), int.from_bytes(self._unread[4:8])
        if len(self._unread) < size:
            return None
        self._starting = code in _ENCRYPTION
        return self._take(STARTUP, size)

    def _take(self, kind: bytes, size: int) -> Part | None:
        if not size:
            return None
        self._left_bytes = max(0, self._left_bytes - size)
        data, self._unread = self._unread[:size], self._unread[size:]
        return Part(kind, data)
