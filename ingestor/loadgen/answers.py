"""What became of a request, in one vocabulary for both protocols.

A refusal is believed only where its code says that nothing was taken; whatever leaves that open is
unanswered, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """The outcome of a request or of a row in it, as one byte."""

    UNSENT = 0
    ACKNOWLEDGED = 1
    REFUSED = 2
    UNANSWERED = 3
    REJECTED = 4  # a row that its request's acknowledgement left out


CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
# After these, the metrics may be stored or not.
AMBIGUOUS: Final = frozenset(
    {"CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "DATA_LOSS"}
)
RETRYABLE: Final = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})

# Why there was no answer, where no code says it.
CONNECTION_LOST: Final = "connection lost"
TIMEOUT: Final = "timeout"
INTERRUPTED: Final = "interrupted"
MALFORMED: Final = "malformed answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's outcome; `rejected`: index and reason of each row that an acknowledgement left out."""

    kind: Kind
    code: str = "OK"
    message: str = ""
    rejected: tuple[tuple[int, str], ...] = ()
    retry_after_s: float | None = None
    permanent: bool = False

    @property
    def retryable(self) -> bool:
        return self.kind is Kind.REFUSED and self.code in RETRYABLE and not self.permanent


class NotConnected(Exception):
    """No connection could be made, so nothing of the request was sent."""


def accepted(size: int, count: int, rejected: tuple[tuple[int, str], ...]) -> Answer:
    """An acknowledgement, if its numbers add up to the request's size."""
    indexes = {index for index, _ in rejected}
    if count + len(indexes) != size or len(indexes) != len(rejected) or not indexes <= set(range(size)):
        return unanswered(MALFORMED, f"accepted {count} and rejected {len(rejected)} of {size}")
    return Answer(Kind.ACKNOWLEDGED, rejected=rejected)


def failed(code: str, message: str, *, retry_after_s: float | None = None, permanent: bool = False) -> Answer:
    """The server's own error; `permanent` when the same request can't ever succeed."""
    if code in AMBIGUOUS:
        return unanswered(code, message)
    return Answer(Kind.REFUSED, code, message, retry_after_s=retry_after_s, permanent=permanent)


def unanswered(reason: str, message: str = "") -> Answer:
    """No answer, or one that doesn't say whether the metrics were taken."""
    return Answer(Kind.UNANSWERED, reason, message)
