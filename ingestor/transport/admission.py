"""Asks whether a call may come in, once its headers are complete and before its body is read.

Who decides that, and by what, the transports don't know: they hand over what the caller sent beside its message,
and the names in the certificate that it showed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ingestor.caller import ANYBODY, Caller
from ingestor.errors import Unauthenticated
from ingestor.metadata import Value

KEY_NAMES = frozenset({"authorization", "x-api-key"})
"""The metadata that a key comes in."""


def not_ascii(name: str) -> Unauthenticated:
    """What to say of metadata among KEY_NAMES that is not ASCII: no other name would help."""
    return Unauthenticated(f"what came as {name} is no key: it is not ASCII")


class Admission(Protocol):
    """What was decided of calls with the same headers; it may be kept for as long as a connection lives."""

    def enter(self) -> Caller:
        """One more call comes in. Raises Unauthenticated, Forbidden or TooFast."""


class Gate(Protocol):
    """Decides who may call what."""

    def recognise(
        self, path: str, metadata: Mapping[str, Sequence[Value]], names: Collection[str]
    ) -> Admission:
        """`path` is an rpc's, as gRPC has it, or a page's; `names` are those of the verified certificate."""


class _Everybody:
    def enter(self) -> Caller:
        return ANYBODY


_EVERYBODY = _Everybody()


class OpenGate:
    """Lets everybody in."""

    def recognise(
        self, path: str, metadata: Mapping[str, Sequence[Value]], names: Collection[str]
    ) -> Admission:
        return _EVERYBODY


OPEN = OpenGate()
