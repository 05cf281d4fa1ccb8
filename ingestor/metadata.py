"""What travels with a call beside its message: the transports set it, a method may read it and send some back.

Names are lower case; those that end in -bin have bytes as values, all others ASCII text, as gRPC has it
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Custom-Metadata").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

Value = str | bytes


@dataclass(slots=True)
class CallMetadata:
    """`received` came with the call; what is appended to `sent`, before the answer, goes back with it."""

    received: Mapping[str, Sequence[Value]]
    sent: list[tuple[str, Value]] = field(default_factory=list)


METADATA: ContextVar[CallMetadata | None] = ContextVar("metadata", default=None)
"""That of the call which the running task serves; None outside of one."""
