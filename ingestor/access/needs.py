"""What has to be allowed for a call, by the rpc's or page's path. What is not named needs `admin`."""

from __future__ import annotations

from enum import Enum, auto

from ingestor.access.scopes import Scopes


class Need(Enum):
    """NOTHING is open to all, A_KEY to every valid key. WRITE and READ are for what looks at each service name
    itself; READ_ALL for what doesn't, so that a key that is limited to some names can't have it."""

    NOTHING = auto()
    A_KEY = auto()
    WRITE = auto()
    READ = auto()
    READ_ALL = auto()
    ADMIN = auto()


def lacking(need: Need, scopes: Scopes) -> str | None:
    """The scope that is missing for it, None if none is."""
    if scopes.admin or need in (Need.NOTHING, Need.A_KEY):
        return None
    if need is Need.WRITE:
        return None if scopes.write_prefixes else "write"
    if need is Need.READ:
        return None if scopes.read_prefixes else "read"
    if need is Need.READ_ALL:
        return None if "" in scopes.read_prefixes else "read (of all services)"
    return "admin"
