"""`ingestor serve` as a process of its own, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "ingestor"]


def environment(**settings: str) -> dict[str, str]:
    """This one's, less what would set the server, plus INGESTOR_* from `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INGESTOR_")}
    return {**kept, **{f"INGESTOR_{name.upper()}": value for name, value in settings.items()}}


async def begin(*arguments: str, cwd: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Starts the command, with its output in pipes."""
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=cwd,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*arguments: str, cwd: Path, **settings: str) -> tuple[int, str, str]:
    """Runs the command to its end, with a DATA_DIR in `cwd` unless told otherwise: exit code, stdout, stderr."""
    settings = {"data_dir": str(cwd / "data"), **settings}
    process = await begin(*arguments, cwd=cwd, env=environment(**settings))
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class ServerProcess:
    """A serving process: its ports, and its log as JSON objects."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.grpc_port = 0
        self.http_port = 0
        self._grown = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            self.log.append(json.loads(line))
            self._grown.set()
        self._grown.set()

    async def until_logged(self, text: str) -> dict[str, Any]:
        """The first line that has this text in its message."""
        while True:
            for line in self.log:
                if text in line["message"]:
                    return line
            assert not self._reader.done(), self.log
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), 30)

    async def serving(self) -> None:
        line = await self.until_logged("serves gRPC on")
        self.grpc_port, self.http_port = line["grpc_port"], line["http_port"]

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def rss_bytes(self) -> int:
        """The memory that it has now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def stop(self, number: int, within_s: float = 30) -> int:
        """Sends the signal and waits; returns the exit code."""
        self.process.send_signal(number)
        return await self.ended(within_s)

    async def ended(self, within_s: float = 30) -> int:
        code = await asyncio.wait_for(self.process.wait(), within_s)
        await self._reader
        return code


async def launch(cwd: Path, *flags: str, **settings: str) -> ServerProcess:
    """Starts `ingestor serve` on free ports with JSON logs and a DATA_DIR in `cwd`, unless told otherwise. Whoever
    calls it ends it. It may open as many files as `open_files` says, which is no setting."""
    open_files = int(settings.pop("open_files", 0))
    usual = {"grpc_port": "0", "http_port": "0", "log_format": "json", "data_dir": str(cwd / "data")}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        *flags,
        cwd=cwd,
        env=environment(**{**usual, **settings}),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=partial(_limit, open_files) if open_files else None,
    )
    return ServerProcess(process)


def _limit(open_files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))


@asynccontextmanager
async def serve(cwd: Path, *flags: str, **settings: str) -> AsyncIterator[ServerProcess]:
    """A serving `ingestor serve`; killed at the end if it still runs."""
    server = await launch(cwd, *flags, **settings)
    try:
        await server.serving()
        yield server
    finally:
        if server.process.returncode is None:
            server.process.kill()
            await server.ended()
