"""Listens on a port, over TLS with a bound on handshakes under way. An event loop's own server accepts whatever
comes, and who then says nothing costs an open file that counts nowhere: until the database finds none left.

It refuses nobody: when there are too many, the handshake that began first makes room.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import cast

from loguru import logger

# A client that is silent is sent away after that long, if there is room for it until then.
_HANDSHAKE_S_MAX = 10.0
# How long a client may take to read what is left for it, and the end.
_SHUTDOWN_S_MAX = 5.0
# Until it is tried again where nothing can be accepted.
_RETRY_S = 1.0

Factory = Callable[[], asyncio.BaseProtocol]


async def listen(
    factory: Factory,
    host: str | None,
    port: int | None,
    *,
    backlog: int,
    context: ssl.SSLContext | None,
    handshakes_max: int,
) -> asyncio.AbstractServer:
    """A server that makes a protocol for each connection, over TLS when there is a context. Raises OSError."""
    if context is None:
        return await asyncio.get_running_loop().create_server(factory, host, port or 0, backlog=backlog)
    served = TlsServer(await _bound(host, port or 0, backlog), factory, context, handshakes_max)
    return cast("asyncio.AbstractServer", served)  # it has all of one that is asked for


class TlsServer:
    """Serves from the moment that it is made, until `close`."""

    def __init__(
        self, sockets: list[socket.socket], factory: Factory, context: ssl.SSLContext, handshakes_max: int
    ) -> None:
        self.sockets = sockets
        self._factory = factory
        self._context = context
        self._handshakes_max = handshakes_max
        self._handshakes: dict[asyncio.Task[None], None] = {}  # in the order of their beginning
        self._accepting = [asyncio.create_task(self._accept(each), name="tls-accept") for each in sockets]
        for task, each in zip(self._accepting, sockets, strict=True):
            task.add_done_callback(partial(_close, each))  # not before the loop has let go of it

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._handshakes)

    def close(self) -> None:
        """Accepts no more, and gives up the handshakes under way; connections stay."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Returns when all that is done."""
        await asyncio.wait([*self._accepting, *self._handshakes])

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        short = False
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if not short:
                    logger.warning("no connection can be accepted: {}", error)
                short = True
                await asyncio.sleep(_RETRY_S)
                continue
            short = False
            self._begin(client)
            await asyncio.sleep(
                0
            )  # what has come already would else be accepted in one turn of the event loop

    def _begin(self, client: socket.socket) -> None:
        if len(self._handshakes) >= self._handshakes_max:
            first = next(iter(self._handshakes))
            del self._handshakes[first]
            first.cancel()
            logger.debug("a client is cut off: its TLS handshake had come slowest of too many")
        task = asyncio.create_task(self._shake_hands(client), name="tls-handshake")
        self._handshakes[task] = None
        task.add_done_callback(partial(self._ended, client))

    async def _shake_hands(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory,
                client,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=_SHUTDOWN_S_MAX,
            )
        except OSError as error:  # TLS's own and timeouts are such, too
            client.close()
            logger.debug("a connection ended before it began: {}", type(error).__name__)

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        if task.cancelled():
            client.close()  # it may not even have begun
        elif (error := task.exception()) is not None:
            client.close()
            logger.opt(exception=error).error("a TLS handshake failed in a way that was not foreseen")


async def _bound(host: str | None, port: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen on each address of this host, as event loops have it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            _bind(family, address, backlog, sockets)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        msg = "the host has no address that could be listened on"
        raise OSError(errno.EADDRNOTAVAIL, msg)
    return sockets


def _bind(family: int, address: tuple[object, ...], backlog: int, sockets: list[socket.socket]) -> None:
    try:
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return  # this machine does not have the family
    sockets.append(listening)
    listening.setblocking(False)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listening.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL or family != socket.AF_INET6:
            raise
        sockets.remove(listening)  # as where IPv6 is there, but has no addresses
        listening.close()
        return
    listening.listen(backlog)


def _close(sock: socket.socket, _: asyncio.Task[None]) -> None:
    sock.close()
