"""What can go wrong, in the words of the domain: permanent, too large, overloaded, unavailable.

No error here knows a status code or a protocol; `ingestor.transport.status` holds the one table that maps
them to gRPC and HTTP, and `ingestor.cli` prints a `StartupError` and exits with its code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

# Enough to find the mistake by; an answer must not be many times as large as its request.
VIOLATIONS_TOLD_MAX = 20


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One broken rule: `field` is a path in proto names (`metrics[3].value`), `description` says the rule."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description

    def within(self, parent: str) -> FieldViolation:
        """The same violation seen from the message that holds `parent`."""
        return FieldViolation(f"{parent}.{self.field}" if self.field else parent, self.description)


UNTAKEN = "nothing was taken"
"""The argument of a CancelledError that ends an offer while it waits for room."""


class Refusal(Exception):
    """A request was refused, and nothing of it was taken. The message is meant for the caller."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(Refusal):
    """The request breaks a rule and will break it again: permanent."""

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)

    @classmethod
    def fields(cls, violations: Sequence[FieldViolation]) -> Invalid:
        """From at least one violation; the first of them becomes the message, the first few are told."""
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        return cls(f"{violations[0]}{more}", violations[:VIOLATIONS_TOLD_MAX])


class TooLarge(Refusal):
    """The body is larger than the server takes: permanent for this body."""


class Unsupported(Refusal):
    """The request is in a form that this server does not read: permanent."""


class NotFound(Refusal):
    """What the request asks about does not exist."""


class NoSuchRoute(Refusal):
    """Nothing is served under this path."""


class WrongMethod(Refusal):
    """The path exists, but not for this HTTP method. `allowed` lists those that it takes, sorted."""

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class CrossSite(Refusal):
    """A page of a site that may not do so would have a browser change something here."""


class WrongMediaType(Refusal):
    """The body's media type is none that this route reads."""


class Later(Refusal):
    """Not now: the same request may well be taken after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Later):
    """There was no room within the wait for it: in the queue, or among those who read."""


class Unavailable(Later):
    """The server is stopping, or can't do its work at the moment."""


class TooFast(Later):
    """The caller's key allows no more at the moment: nothing was taken."""


class Unauthenticated(Refusal):
    """Nobody knows who calls: there is no key, or none that is valid."""


class Forbidden(Refusal):
    """It is known who calls, and they may not do this: permanent for this key."""


class Conflict(Refusal):
    """The request_id was used before, for a request that asked for something else: permanent."""


class NotStored(Refusal):
    """The database refuses the request's only row, which is in dead_letters now: permanent."""


class TooLate(Refusal):
    """The promised acknowledgement did not come in time. Whether the rows are or will be stored is unknown."""


class TooSlow(Refusal):
    """What was asked took longer to be found than the server allows."""


class SentTooSlowly(Refusal):
    """The request did not come whole in the time for it."""


class StorageError(Exception):
    """A batch was not stored, or nobody can tell. Says nothing to callers, much to logs."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class StorageUnavailable(StorageError):
    """The server's fault, or unclear: the same batch may be stored later. Retryable.

    When the connection was lost at COMMIT the batch may be stored already; the cursor tells.
    """


class SchemaProblem(StorageError):
    """The schema's fault (no such table, column or partition; no permission): the same batch can be stored once
    somebody has mended it. Retryable, but not by itself."""


class RowsRefused(StorageError):
    """A row's fault: the same rows will be refused again. Permanent, and never told beyond storage."""


def without_values(reason: str, sqlstate: str | None) -> str:
    """The database's reason as it may be logged. Those of broken constraints name tables and constraints; others,
    and a trigger's above all, may quote the row."""
    if sqlstate is None or sqlstate.startswith("23"):
        return reason
    return f"SQLSTATE {sqlstate} (`ingestor dead-letters list` shows the reason)"


class CursorElsewhere(StorageError):
    """The database's cursor for this journal does not stand where the delivery begins: what lies behind `position`
    is what has to be stored next."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the cursor stands at {position}")
        self.position = position


class StartupError(Exception):
    """The process can't start or go on; one line that says what to do, and the exit code for it."""

    exit_code: ClassVar[int] = 1


class BadSetting(StartupError):
    """A setting or flag is wrong."""

    exit_code = 2


class DatabaseProblem(StartupError):
    """The database can't be reached, refuses us, or holds a schema that we can't use. `passing` says that it
    may well be there later without anybody's doing."""

    exit_code = 3

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class AddressProblem(StartupError):
    """A port is taken or an address can't be listened on."""

    exit_code = 4

    @classmethod
    def listening(cls, protocol: str, host: str, port: int, error: OSError) -> Self:
        """`protocol` is gRPC or HTTP, `error` what bind or getaddrinfo raised."""
        # asyncio's own text repeats the address; getaddrinfo's numbers are negative and not errno's.
        number = error.errno or 0
        reason = os.strerror(number).lower() if number > 0 else error.strerror or str(error)
        setting = f"{protocol.upper()}_PORT"
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{protocol} can't listen on {shown}:{port}: {reason} (see HOST and {setting})")


class DataDirProblem(StartupError):
    """DATA_DIR can't be used."""

    exit_code = 5


class JournalProblem(DataDirProblem):
    """The journal in DATA_DIR is in use, not ours, from a newer release, or filled for another database."""


class ServerProblem(StartupError):
    """The server that a client command was to ask can't be reached, or refuses to answer."""

    exit_code = 7

    def __init__(self, address: str, what: str) -> None:
        super().__init__(f"the server at {address} {what}")
