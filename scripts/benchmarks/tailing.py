"""What a reader costs those who store who asked for everything that is stored, and reads nothing of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_RECEIVED_BYTES = 4_096


@asynccontextmanager
async def stopped(port: int, readers: int) -> AsyncIterator[None]:
    """So many that are answered, and leave it lying."""
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(readers):
            reader = socket.socket()
            sockets.append(reader)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
            reader.setblocking(False)
            await loop.sock_connect(reader, ("127.0.0.1", port))
            await loop.sock_sendall(reader, b"GET /v1/metrics:tail HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not (answer := await loop.sock_recv(reader, 64)).startswith(b"HTTP/1.1 200"):
                msg = f"a reader was answered with {answer!r}"
                raise RuntimeError(msg)
        yield
    finally:
        for reader in sockets:
            reader.close()
