"""The certificate in force, for every new connection on both ports, and its replacement when the files change.

A pair that can't be used replaces nothing: the one before it stays, and that is told until it is mended.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loguru import logger

from ingestor.errors import BadSetting
from ingestor.transport.tls.files import Stamp, TlsFiles, warnings

ALPN_GRPC = ("h2",)
ALPN_HTTP = ("http/1.1",)
_LOOK_S = 3.0


@dataclass(frozen=True, slots=True)
class State:
    """Until when the certificate in force holds, and why the files can't replace it, or None."""

    expires: datetime
    problem: str | None


class Certificates:
    """`context` gives what a port listens with; `keep` looks after the files for as long as it runs. `told` hears
    of each look that changed something, `failed` of each handshake that failed. Making it raises
    BadSetting."""

    def __init__(
        self,
        files: TlsFiles,
        *,
        told: Callable[[State], None] = lambda _: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._told = told
        self._failed = failed
        self._ports: dict[tuple[str, ...], _Port] = {}
        self._seen: Stamp = files.stamp()
        self._expires = self._checked()
        self._problem: str | None = None

    @property
    def state(self) -> State:
        """How things stand."""
        return State(self._expires, self._problem)

    def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """For a port that offers these protocols; each handshake is made with the files as they were last taken."""
        if protocols not in self._ports:
            port = _Port()
            port.now = self._made(protocols)
            self._ports[protocols] = port
        return self._ports[protocols]

    async def keep(self, every_s: float = _LOOK_S) -> None:
        """Looks at the files every so many seconds. Whatever goes wrong with a look is told, and never the end."""
        self._told(self.state)
        while True:
            await asyncio.sleep(every_s)
            before = self.state
            try:
                # In a thread, since a file system may hang.
                await asyncio.to_thread(self.look)
            except Exception as error:  # noqa: BLE001 - whatever it is, a later look may find a certificate renewed
                self._fail(f"they could not be looked at: {error!r}")
            if self.state != before:
                self._told(self.state)

    def look(self) -> bool:
        """Takes the files if they have changed, or could not be taken the last time. Returns whether anything is
        different from before."""
        stamp = (
            self._files.stamp()
        )  # before they are read: what is written meanwhile is seen by the next look
        if stamp == self._seen and self._problem is None:
            return False
        before, self._seen = self.state, stamp
        try:
            made = {protocols: self._made(protocols) for protocols in tuple(self._ports)}
            self._expires = self._checked()
        except BadSetting as error:
            self._fail(str(error))
            return self.state != before
        for protocols, context in made.items():
            self._ports[protocols].now = context
        self._problem = None
        logger.info("new TLS files are in force; the certificate holds until {:%Y-%m-%d}", self._expires)
        return True

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            logger.error("the changed TLS files can't be used, those before them stay: {}", problem)
        self._problem = problem

    def _checked(self) -> datetime:
        self._files.context(())
        found = self._files.validity()
        for warning in warnings(self._files, found):
            logger.warning("{}", warning)
        return found.ends

    def _made(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        context = self._files.context(protocols)
        context.sslobject_class = type("Handshake", (_Handshake,), {"failed": staticmethod(self._failed)})
        return context


class _Handshake(ssl.SSLObject):
    """A connection's TLS, which tells when it does not come about."""

    failed: Callable[[], None]

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            logger.debug("a TLS handshake failed: {}", error.reason)
            self.failed()
            raise


class _Port(ssl.SSLContext):
    """What an event loop is given once for a port: each connection is made by the context of the moment. (A context
    that is used can't forget a CA, nor the sessions of clients that it has verified.)"""

    now: ssl.SSLContext

    def __new__(cls) -> _Port:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.now.wrap_bio(*args, **kwargs)
