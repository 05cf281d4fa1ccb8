"""Whom the server lets in, and how it proves who it is: keys and certificates, as the settings name them.

Part of the composition root. It refuses a start that would leave a port open to everybody by a slip; while the
server runs, what is known stays in force when a changed file can't be used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from ingestor import page
from ingestor.access import Gate, Keys, KeysFile, KeysProblem, Need, Watch
from ingestor.errors import BadSetting, DataDirProblem
from ingestor.permissions import NEEDS
from ingestor.settings import Settings
from ingestor.telemetry import Telemetry
from ingestor.transport.tls import Certificates, State, TlsFiles

_KEYS_PROBLEM = "the file of keys can't be used, and those that were known stay in force: the log says why"


class Trust:
    """`gate` and `context` are for both protocols' servers. From `begin` to `close` it looks after the files."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        # The page itself tells nothing: what it shows it asks for, with the key that it is given.
        self.gate = Gate({**NEEDS, **dict.fromkeys((file.path for file in page.files()), Need.NOTHING)})
        self.keys = Watch(KeysFile(settings.keys_path), self.gate)
        self._certificates: Certificates | None = None
        self._looking: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Reads the files: first of all, since wrong ones are an operator's mistake that a start should not take
        long to tell. Raises BadSetting or DataDirProblem."""
        self._begin_tls()
        self._begin_keys()

    def close(self) -> None:
        """Looks at nothing any more; what is known stays."""
        for task in self._looking:
            task.cancel()

    def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext | None:
        """For a port that offers these protocols; None when it is not to speak TLS."""
        return None if self._certificates is None else self._certificates.context(protocols)

    async def problem(self) -> str | None:
        """Why the file of keys does not count. Who asks needs no key, so that where it lies and what is in it is
        for the log alone."""
        return _KEYS_PROBLEM if self.keys.problem is not None else None

    def _begin_tls(self) -> None:
        if (files := tls_files(self._settings)) is None:
            return
        telemetry = self._telemetry

        def told(state: State) -> None:
            telemetry.tls_expiry.set(state.expires.timestamp())
            telemetry.tls_reload_failing.set(state.problem is not None)

        self._certificates = Certificates(files, told=told, failed=telemetry.tls_handshake_failures.inc)
        self._looking.append(asyncio.create_task(self._certificates.keep(), name="tls-keeper"))

    def _begin_keys(self) -> None:
        with keys_problems(self._settings):
            self.keys.begin()
        check_keys(self._settings, self.gate.keys)
        self._looking.append(asyncio.create_task(self.keys.keep(), name="keys"))
        self._telemetry.watch_keys(
            valid=self.gate.valid, problem=lambda: float(self.keys.problem is not None)
        )


@contextmanager
def keys_problems(settings: Settings) -> Iterator[None]:
    """Around reading the keys: where they lie in DATA_DIR and can't be reached, that is the problem."""
    try:
        yield
    except KeysProblem as problem:
        if settings.keys_file is None and isinstance(problem.__cause__, OSError):
            raise DataDirProblem(str(problem)) from problem
        raise


def check_keys(settings: Settings, keys: Keys | None) -> None:
    """Raises BadSetting when there are none although a file was named, or others than this machine could call."""
    if settings.keys_file is not None and not (keys and keys.all):
        msg = (
            f"KEYS_FILE {settings.keys_file} has no keys: make one with `ingestor keys create`, or leave KEYS_FILE"
            " unset, so that callers need none"
        )
        raise BadSetting(msg)
    if not (keys and keys.all) and not (
        settings.listens_on_loopback or settings.insecure or settings.knows_its_callers
    ):
        msg = (
            f"HOST={settings.host} listens beyond loopback, and {settings.keys_path} has no keys:"
            " make one with `ingestor keys create`, or put INSECURE=true beside it if the network is private"
        )
        raise BadSetting(msg)


def tls_files(settings: Settings) -> TlsFiles | None:
    """What both ports are to speak TLS with; None when they are not."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    optional = settings.tls_client_auth == "optional"
    return TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca, client_optional=optional)
