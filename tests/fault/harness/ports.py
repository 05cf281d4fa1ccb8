"""Ports that a process can be given, and be given again after it was killed."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to connections: one that is free stays so while its process is dead.
_FIRST, _LAST = 20_000, 32_000


def free_port() -> int:
    """One that nobody listens on."""
    while True:
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
