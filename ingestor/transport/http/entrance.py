"""Lets the calls of one connection in: what the gate has decided of a call holds for the next ones like it.

It decides nothing itself, and keeps little: who carries much with a call has each one looked at anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from ingestor.caller import Caller
from ingestor.metadata import Value
from ingestor.transport.admission import Admission, Gate

Header: TypeAlias = tuple[bytes, bytes]
"""A name and a value, as they were sent."""

# For as long as the connection lives. A key has some 50 bytes, and a proxy sends those of several callers.
_KEPT_MAX, _KEPT_BYTES_MAX = 4, 512


class Entrance:
    """`names` are those of the certificate that the connection's client has shown."""

    __slots__ = ("_admissions", "_gate", "_names")

    def __init__(self, gate: Gate, names: Collection[str]) -> None:
        self._gate = gate
        self._names = names
        # Found by a hash of what is sent, which is keyed: the time that takes tells nothing of another's key.
        self._admissions: dict[tuple[str, tuple[Header, ...]], Admission] = {}

    def enter(self, path: str, carried: Sequence[Header], metadata: Mapping[str, Sequence[Value]]) -> Caller:
        """One more call of this path comes in; `metadata` is what it has carried. Raises what `Admission.enter`
        does."""
        like = (path, tuple(carried))
        admission = self._admissions.get(like)
        if admission is not None:
            return admission.enter()
        admission = self._gate.recognise(path, metadata, self._names)
        caller = admission.enter()
        if sum(len(name) + len(value) for name, value in carried) <= _KEPT_BYTES_MAX:
            if len(self._admissions) == _KEPT_MAX:
                self._admissions.clear()
            self._admissions[like] = admission
        return caller
