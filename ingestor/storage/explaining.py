"""What went wrong with a database, as one line for an operator: which server, what it said, and what to do.

Nothing that may be part of a password is shown: of an address host, port and database alone, and nothing that a
driver quotes of it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from ingestor.errors import DatabaseProblem, StorageUnavailable
from ingestor.storage.faults import FAILURES, classify, describe

# Those with which we can't go on: no point in naming SQLSTATEs beyond what an operator can act on.
_REMEDIES = {
    "28P01": "check the password in DATABASE_URL",
    "28000": "check the user in DATABASE_URL and the server's pg_hba.conf",
    "3D000": "create the database, or name another in DATABASE_URL",
    "42501": "let the role own the schema, or migrate once as a role that may: ingestor migrate",
    "53300": "raise the server's max_connections, or stop other clients",
    "57P03": "try again when the server has started",
}
# Hosts with numeric ports: anything else may be a part of a password.
_HOSTS = re.compile(r"(?:(?:\[[^\[\]]+\]|[^:@,\[\]]*)(?::[0-9]+)?(?:,|$))*")
_NAMES_FILES = re.compile(r"[?&]ssl(rootcert|cert|key|crl)=")
_MISREAD = (
    "its address, or a parameter in it (sslmode, sslrootcert ...), is wrong (check DATABASE_URL and PG*)"
)
_UNREADABLE = "an address that can't be read"


def redacted(url: str) -> str:
    """The address as it may be shown: without user and password, and of the parameters only host and port."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _UNREADABLE
    login, _, hosts = parts.netloc.rpartition("@")
    plain = re.match(r"postgres(ql)?:/", url, re.IGNORECASE) is not None
    if not plain or "@" in f"{login}{parts.path}{parts.query}{parts.fragment}" or not _HOSTS.fullmatch(hosts):
        return _UNREADABLE
    if not hosts:
        query = parse_qs(parts.query)
        port = "".join(f":{port}" for port in query.get("port", []))
        hosts = query["host"][-1] + port if "host" in query else "the default socket"
    return f"{unquote(hosts)}{parts.path}"


def _look_after(url: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | PermissionError) and _NAMES_FILES.search(url):
        return "check the files that DATABASE_URL names: sslrootcert, sslcert, sslkey"
    return "check DATABASE_URL, and that the server runs"


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns what asyncpg raises into a DatabaseProblem that names the server and the remedy."""
    try:
        yield
    except (*FAILURES, ValueError) as error:
        if isinstance(error, ssl.SSLCertVerificationError):  # a ValueError, too
            msg = (
                f"the database at {redacted(url)} can't be used: its certificate is not accepted:"
                f" {error.verify_message.rstrip('.')} (check sslrootcert in DATABASE_URL, and the host's name)"
            )
            raise DatabaseProblem(msg) from None
        if isinstance(error, ValueError):
            # Its text may quote what was taken for a port or a host, which may be a password.
            msg = f"the database at {redacted(url)} can't be used: {_MISREAD}"
            raise DatabaseProblem(msg) from None
        sqlstate = getattr(error, "sqlstate", None)
        hint = getattr(error, "hint", None) or _REMEDIES.get(sqlstate or "")
        remedy = hint or (_look_after(url, error) if sqlstate is None else None)
        text = f"the database at {redacted(url)} can't be used: {describe(error)}"
        passing = isinstance(classify(error), StorageUnavailable)
        raise DatabaseProblem(f"{text} ({remedy})" if remedy else text, passing=passing) from error
