"""A gateway process that is started, killed and started again on the same ports and the same DATA_DIR.

It is `ingestor serve` as it is; what is known of it comes from its log and its pages.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.fault.harness.load import Target
from tests.fault.harness.ports import free_port
from tests.server_process import ServerProcess, launch

_SAMPLE = re.compile(r"^ingestor_metrics_([a-z_]+?)(?:_total)? (\S+)$", re.MULTILINE)
_ENDED_AS = ("committed", "rejected", "dead_lettered", "duplicates", "pending")


class Gateway:
    """One DATA_DIR and the process that serves it, if any."""

    def __init__(self, home: Path, database_url: str, **settings: str) -> None:
        home.mkdir(exist_ok=True)
        self._home = home
        self._server: ServerProcess | None = None
        self._grpc, self._http = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        self.settings = {
            "database_url": database_url,
            "grpc_port": str(self._grpc[1]),
            "http_port": str(self._http[1]),
            "commit_wait_max": "5s",
            "drain_timeout": "10s",
            **settings,
        }
        self.logs: list[dict[str, Any]] = []
        self.starts = 0

    @property
    def server(self) -> ServerProcess:
        """The process that runs."""
        assert self._server is not None
        return self._server

    def target(self) -> Target:
        """Where it is called."""
        return Target(lambda: self._grpc, lambda: self._http)

    async def launch(self) -> None:
        """Starts it and does not wait."""
        assert self._server is None
        self._server = await launch(self._home, **self.settings)
        self.starts += 1
        self.logs = self._server.log

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        await self.launch()
        await self.server.serving()

    async def kill(self) -> None:
        """kill -9."""
        server, self._server = self.server, None
        server.process.kill()
        await server.ended()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        server, self._server = self.server, None
        return await server.stop(signal.SIGTERM)

    async def close(self) -> None:
        """Leaves no process."""
        if self._server is not None:
            await self.kill()

    async def counters(self) -> dict[str, float]:
        """The counters of metrics, without their prefix and suffix."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._base}/metrics") as response:
            return {name: float(value) for name, value in _SAMPLE.findall(await response.text())}

    async def ready(self) -> dict[str, Any]:
        """What /readyz says."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._base}/readyz") as response:
            document: dict[str, Any] = await response.json()
            return document

    @property
    def _base(self) -> str:
        return f"http://{self._http[0]}:{self._http[1]}"

    async def settled(self, within_s: float = 30.0) -> dict[str, float]:
        """Waits until nothing is pending; the counters then add up. Returns them."""
        counters: dict[str, float] = {}
        try:
            async with asyncio.timeout(within_s):
                while not counters or counters["pending"] or _missing(counters):
                    await asyncio.sleep(0.05)
                    counters = await self.counters()
        except TimeoutError:
            raise AssertionError((counters, _missing(counters), self.logs[-10:])) from None
        return counters

    def complaints(self, *expected: str) -> list[str]:
        """What the log says at ERROR and above, less what was to be expected."""
        severe = [line for line in self.logs if line["level"] in {"ERROR", "CRITICAL"}]
        return [line["message"] for line in severe if not any(text in line["message"] for text in expected)]


def _missing(counters: dict[str, float]) -> float:
    return counters["received"] - sum(counters[name] for name in _ENDED_AS)


@asynccontextmanager
async def gateway(home: Path, database_url: str, **settings: str) -> AsyncIterator[Gateway]:
    """One that serves; no process is left behind."""
    one = Gateway(home, database_url, **settings)
    try:
        await one.start()
        yield one
    finally:
        await one.close()
