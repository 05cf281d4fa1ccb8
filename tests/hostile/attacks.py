"""What hostile callers do. Each is a function of the gRPC and the HTTP port and of how much; it returns what became
of the caller. They run as a process of their own (`python -m tests.hostile.attacks NAME GRPC_PORT HTTP_PORT SIZE
SECONDS`), so that what they take of the interpreter is not the bystander's; again until so long has passed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from tests.hostile.floods import (
    continuations,
    empty_data,
    pings,
    rapid_resets,
    rapid_resets_of_streams,
    resets_by_us,
    settings,
)
from tests.hostile.holding_on import (
    half_open_tls,
    many_streams,
    silent,
    slow_readers,
    too_many_connections,
    watches,
    window_zero,
)
from tests.hostile.requests import (
    gzip_bombs,
    gzip_bombs_over_http,
    half_requests,
    large_headers,
    prefix,
    slow_writers,
)
from tests.hostile.sockets import Became

ATTACKS: dict[str, Callable[[int, int, int], Became]] = {
    attack.__name__: attack
    for attack in (
        rapid_resets,
        rapid_resets_of_streams,
        resets_by_us,
        pings,
        settings,
        empty_data,
        continuations,
        prefix,
        gzip_bombs,
        gzip_bombs_over_http,
        many_streams,
        large_headers,
        silent,
        slow_writers,
        half_requests,
        slow_readers,
        too_many_connections,
        window_zero,
        watches,
        half_open_tls,
    )
}

if __name__ == "__main__":
    name, *numbers, seconds = sys.argv[1:]
    attacks_until = time.monotonic() + float(seconds)
    while True:
        print(json.dumps(ATTACKS[name](*map(int, numbers))))
        if time.monotonic() >= attacks_until:
            break
