"""How many connections the limit of open files leaves room for. It is raised as far as this process may, and never
used up: the journal and the database need some, too.
"""

from __future__ import annotations

import math
import resource

from loguru import logger

# The journal's segments, the database's connections, sockets that listen, and what else is open.
_OTHERS = 256


def room_for_connections(wanted: int, ports: int, beginning: float = 0.0) -> int:
    """For each of so many ports: as many as are wanted, or fewer, which is logged as a WARNING. Beside them are
    those that only begin, `beginning` for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = ports * (1.0 + beginning)
    needed = math.ceil(wanted * files) + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    room = max(1, int((soft - _OTHERS) / files))
    logger.warning(
        "the limit of {} open files leaves room for {} connections on each port, not for the {} of CONNECTIONS_MAX",
        soft,
        room,
        wanted,
    )
    return room
