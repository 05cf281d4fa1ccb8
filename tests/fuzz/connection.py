"""The socket of a fuzzed connection, for both protocols: it sends, and sees what is broken on purpose to its end.

That the server does not read, or does not end what it has to, is Wrong; that it ends early is for others to judge.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.fuzz.tally import Wrong

ANSWERED_WITHIN_S = 60.0
RECV_BYTES = 2**18
_KEPT_BYTES = 4_000


def connected(port: int) -> socket.socket:
    """One to the server there, which has so long for everything."""
    made = socket.create_connection(("127.0.0.1", port), ANSWERED_WITHIN_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def send(to: socket.socket, data: bytes, waiting: Callable[[], object]) -> None:
    """All of it, unless the connection ends; why is to be read then. `waiting` says what was sent before. Raises
    Wrong."""
    try:
        to.sendall(data)
    except TimeoutError:
        raise Wrong(f"not read: {waiting()}") from None
    except OSError:
        pass


def broken_off(by: socket.socket, sent: bytes) -> bytes:
    """Sends no more, and returns the beginning of what comes until the server has ended the connection, as it has
    to; nothing where it did so by a reset. Raises Wrong."""
    answer = b""
    try:
        by.shutdown(socket.SHUT_WR)
        while piece := by.recv(RECV_BYTES):
            answer = (answer + piece)[:_KEPT_BYTES]
    except TimeoutError:
        raise Wrong(f"not ended after {sent!r}") from None
    except OSError:
        answer = b""
    finally:
        by.close()
    return answer
