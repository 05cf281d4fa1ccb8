"""No bytes kill a server or a decoder, hang it, are answered as its own fault, or stay in its memory."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import asyncpg
import pytest

from tests.fuzz.fuzzer import MIB, Fuzzer, Memory
from tests.server_process import serve

# `make fuzz` sets both, with a seed that is said where something fails; a short run always tries the same.
SHORT = 20_000
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "20000"))
DECODER_CASES = int(os.environ.get("FUZZ_DECODER_CASES", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", str(random.randrange(10**9)) if REQUESTS > SHORT else "1"))
RSS_MAX = 350 * MIB
# Over the most of the first half; fewer requests than these don't fill caches and arenas.
FLAT_WITHIN = 24 * MIB
FLAT_FROM_REQUESTS = 500_000
# Rows are stored for the sake of it, and would fill the disk of a long run.
THROWN_AWAY_EVERY_S = 60.0


@pytest.mark.timeout(120 + REQUESTS // 100)
async def test_hostile_requests(open_path: Path, database_url: str) -> None:
    """Both protocols at once: every request ends in an answer or with its connection, no answer says that it is the
    server's fault, nothing is logged as one, and memory does not grow with requests."""
    settings = {"journal": "memory", "admission_wait": "0"}
    async with serve(open_path, database_url=database_url, **settings) as server:
        fuzzers = [Fuzzer("grpc", server.grpc_port, SEED), Fuzzer("http", server.http_port, SEED)]
        memory = Memory(fuzzers, lambda: server.process.pid)
        throwing = asyncio.create_task(throw_away(database_url))
        try:
            async with asyncio.TaskGroup() as group:
                for each in fuzzers:
                    group.create_task(each.run(REQUESTS // 2, memory.look))
        finally:
            throwing.cancel()
            await asyncio.wait([throwing])
        assert server.process.returncode is None
        severe = [line for line in server.log if line["level"] in {"ERROR", "CRITICAL"}]
    assert not severe, f"FUZZ_SEED={SEED}: {severe[:5]}"
    stays_flat(memory, REQUESTS)


@pytest.mark.timeout(120 + DECODER_CASES // 100)
async def test_hostile_bytes() -> None:
    """Every decoder, in a process of its own: a native one's crash would take this one along."""
    fuzzer = Fuzzer("decoders", 0, SEED)
    memory = Memory([fuzzer], lambda: fuzzer.pid)
    await fuzzer.run(DECODER_CASES, memory.look)
    stays_flat(memory, DECODER_CASES)


def stays_flat(memory: Memory, requests: int) -> None:
    first, most = memory.halves()
    assert most < RSS_MAX
    assert requests < FLAT_FROM_REQUESTS or most < first + FLAT_WITHIN


async def throw_away(database_url: str) -> None:
    """Now and then, for ever."""
    while True:
        await asyncio.sleep(THROWN_AWAY_EVERY_S)
        connection = await asyncpg.connect(database_url)
        await connection.execute("TRUNCATE metrics, dead_letters")
        await connection.close()
