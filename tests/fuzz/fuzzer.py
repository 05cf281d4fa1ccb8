"""A process that sends fuzzed requests, and a look at the memory of the process that has to bear them.

It knows how far the one is and how large the other; what may be is the test's to say.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.server_process import ROOT

MIB = 2**20
_TELL_EVERY_REQUESTS = 200_000


class Fuzzer:
    """One side (see `tests.fuzz.__main__`), and how far it is. `looks` is called as often as it says so."""

    def __init__(self, side: str, port: int, seed: int) -> None:
        self.side = side
        self.pid = 0
        self.requests = 0
        self.said = ""
        self._port, self._seed = port, seed

    async def run(self, requests: int, looks: Callable[[], None]) -> None:
        """To its end. Raises AssertionError with what was answered as nothing may be."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fuzz", self.side, str(self._port), str(self._seed), str(requests)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.pid = process.pid
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self.said = line.decode().strip()
                self.requests = json.loads(line)["requests"]
                looks()
            _, problem = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, (
            f"FUZZ_SEED={self._seed}, behind {self.requests} requests: {problem.decode()}"
        )


class Memory:
    """What a process has, by how many requests there were."""

    def __init__(self, fuzzers: list[Fuzzer], pid: Callable[[], int]) -> None:
        self._fuzzers, self._pid = fuzzers, pid
        self._told = 0
        self.seen: list[tuple[int, int]] = []

    def look(self) -> None:
        """Notes what it has now, and tells now and then how far it is."""
        requests = sum(each.requests for each in self._fuzzers)
        try:
            pages = int(Path(f"/proc/{self._pid()}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return  # it has ended; why is for others to say
        self.seen.append((requests, pages * os.sysconf("SC_PAGE_SIZE")))
        if requests >= self._told + _TELL_EVERY_REQUESTS:
            self._told = requests
            print(f"{requests} requests, RSS {self.seen[-1][1] // MIB} MiB", flush=True)

    def halves(self) -> tuple[int, int]:
        """The most it had in the first half of the requests, and in all, in bytes; prints it and the answers."""
        middle = self.seen[-1][0] / 2
        first = max(rss for requests, rss in self.seen if requests <= middle)
        most = max(rss for _, rss in self.seen)
        for each in self._fuzzers:
            print(f"{each.side}: {each.said}")
        print(f"RSS at most {first // MIB} MiB in the first half, {most // MIB} MiB in all")
        return first, most
