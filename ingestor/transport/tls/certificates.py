"""The certificate in force, for every new connection on both ports, and its replacement when the files change.

It keeps no connection from going on with the one that it began with; a pair that can't be used replaces nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loguru import logger

from ingestor.file_watch import EVERY_S, FileWatch
from ingestor.transport.tls.files import TlsFiles, warnings
from ingestor.transport.tls.validity import Validity

ALPN_GRPC = ("h2",)
ALPN_HTTP = ("http/1.1",)


@dataclass(frozen=True, slots=True)
class State:
    """Until when the certificate in force holds, and why the files can't replace it, or None."""

    expires: datetime
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Read:
    """What the files hold: a context for each port that there is."""

    validity: Validity
    contexts: dict[tuple[str, ...], ssl.SSLContext]


class Certificates:
    """`context` gives what a port listens with; `keep` looks after the files for as long as it runs. `told` hears
    how things stand, at first and after each look that changed something, `failed` of each handshake that failed.
    Making it raises BadSetting."""

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
        self._watch = FileWatch(
            files.paths,
            self._read,
            self._use,
            kept="the changed TLS files can't be used, those before them stay",
            told=self._tell,
        )
        self.look = self._watch.look
        self._take(self._watch.begin().validity)

    @property
    def state(self) -> State:
        """How things stand."""
        return State(self._expires, self._watch.problem)

    def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """For a port that offers these protocols; each handshake is made with the files as they were last taken."""
        if protocols not in self._ports:
            port = _Port()
            port.now = self._made(protocols)
            self._ports[protocols] = port
        return self._ports[protocols]

    async def keep(self, every_s: float = EVERY_S) -> None:
        """Looks at the files every so many seconds."""
        self._tell()
        await self._watch.keep(every_s)

    def _tell(self) -> None:
        self._told(self.state)

    def _read(self) -> _Read:
        """Raises BadSetting."""
        self._files.context(())
        return _Read(
            self._files.validity(), {protocols: self._made(protocols) for protocols in tuple(self._ports)}
        )

    def _use(self, found: _Read) -> None:
        for protocols, context in found.contexts.items():
            self._ports[protocols].now = context
        self._take(found.validity)
        logger.info("new TLS files are in force; the certificate holds until {:%Y-%m-%d}", self._expires)

    def _take(self, found: Validity) -> None:
        for warning in warnings(self._files, found):
            logger.warning("{}", warning)
        self._expires = found.ends

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
