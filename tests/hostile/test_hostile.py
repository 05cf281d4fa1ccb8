"""Hostile callers of a real server, while another client goes on: they are cut off with the right code, the other
one is answered, and the server stays small.

HOSTILE_FULL makes each attack as large as it is known for, repeats it for as long as it takes to measure, and holds
the other client's p99 to 60 ms. What it is without an attack is printed beside it: where that is slow, others use
the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import pytest_asyncio
from grpclib.client import Channel
from ingestor_api.analytics.v1 import AnalyticsServiceStub, LogMetricRequest

from tests.certificates import Pki
from tests.conftest import fresh_database
from tests.hostile.attacks import ATTACKS
from tests.server_process import ROOT, ServerProcess, serve

FULL = bool(os.environ.get("HOSTILE_FULL"))
MIB = 2**20
RSS_MAX = 350 * MIB
P99_MAX_S = 0.06
PATIENCE_S = 10.0
# So long each attack goes on: hundreds of the bystander's calls.
ATTACK_S = 6.0 if FULL else 0.0
ALONE_S = 2.0 if FULL else 0.0
CALLS_MIN = 5
CALM, OK, DEADLINE, EXHAUSTED = 11, "0", "4", "8"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@dataclass
class Bystander:
    """A client that minds its own business: a metric every few milliseconds."""

    stub: AnalyticsServiceStub
    server: ServerProcess
    latencies_s: list[float] = field(default_factory=list)
    rss_bytes: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def goes_on(self) -> None:
        """For ever. Raises when a call is not answered well."""
        while True:
            began_at = time.monotonic()
            await asyncio.wait_for(self.stub.log_metric(LogMetricRequest("by", "stander", 1.0)), PATIENCE_S)
            self.latencies_s.append(time.monotonic() - began_at)
            if len(self.latencies_s) >= CALLS_MIN:
                self.enough.set()
            self.rss_bytes = max(self.rss_bytes, self.server.rss_bytes())
            await asyncio.sleep(0.004)

    async def measured_s(self) -> tuple[float, float]:
        """The p99 and the longest of the calls since this was last asked; of some, however busy the machine is."""
        self.enough.clear()
        await asyncio.wait_for(self.enough.wait(), PATIENCE_S)
        latencies_s, self.latencies_s = sorted(self.latencies_s), []
        return latencies_s[int(len(latencies_s) * 0.99)], latencies_s[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """One for all attacks, so that what one leaves behind is seen; with less patience than by default."""
    times = {"header_timeout": "2s", "request_timeout": "4s", "send_timeout": "3s"}
    async with (
        fresh_database(postgres) as url,
        serve(
            tmp_path_factory.mktemp("hostile"),
            database_url=url,
            connections_max="600",
            log_level="INFO",
            **times,
        ) as running,
    ):
        yield running


async def attacked(
    server: ServerProcess, name: str, size: int, through: Channel | None = None
) -> list[dict[str, Any]]:
    """What became of the attacker each time, after the bystander was looked at, too."""
    async with through or Channel("127.0.0.1", server.grpc_port) as channel:
        bystander = Bystander(AnalyticsServiceStub(channel), server)
        going_on = asyncio.create_task(bystander.goes_on())
        await bystander.measured_s()  # its first call connects
        await asyncio.wait([going_on], timeout=ALONE_S)
        alone_s, _ = await bystander.measured_s()
        attacker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile.attacks", name),
            *map(str, (server.grpc_port, server.http_port, size, ATTACK_S)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdout=asyncio.subprocess.PIPE,
        )
        saying = asyncio.create_task(attacker.communicate())
        await asyncio.wait([saying, going_on], return_when=asyncio.FIRST_COMPLETED)
        if going_on.done():
            attacker.kill()
            going_on.result()
        out, _ = await saying
        bystander_goes_on_for_s = 0.3  # what was begun may end only now
        await asyncio.wait([going_on], timeout=bystander_goes_on_for_s)
        assert not going_on.done() or going_on.result()
        calls = len(bystander.latencies_s)
        p99_s, longest_s = await bystander.measured_s()
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
    assert attacker.returncode == 0
    became: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    print(
        f"{name:24} p99 {p99_s * 1e3:6.1f} ms ({alone_s * 1e3:.1f} without), longest {longest_s * 1e3:6.1f} ms of"
        f" {calls:5} calls, RSS {bystander.rss_bytes / MIB:4.0f} MiB, {len(became)} times  {became[0]}"
    )
    assert bystander.rss_bytes < RSS_MAX
    assert not FULL or p99_s < P99_MAX_S
    return became


async def cut_off(server: ServerProcess, protocol: str, reason: str) -> float:
    """How many connections were, by the server's own count."""
    page = await asyncio.to_thread(urlopen, f"{server.http_url}/metrics")
    named = f'ingestor_connections_cut_off_total{{protocol="{protocol}",reason="{reason}"}} '
    return sum(
        float(line.split()[-1]) for line in page.read().decode().splitlines() if line.startswith(named)
    )


@pytest.mark.parametrize(
    ("name", "short", "full"),
    [
        ("rapid_resets", 10, 100),
        ("rapid_resets_of_streams", 10, 1000),
        ("resets_by_us", 20, 1000),
        ("pings", 8, 64),
        ("settings", 8, 64),
        ("empty_data", 4, 64),
        ("continuations", 2, 100),
    ],
)
async def test_floods(server: ServerProcess, name: str, short: int, full: int) -> None:
    """ENHANCE_YOUR_CALM, which the caller is given time to read; a caller that goes on sending may miss it."""
    floods = await cut_off(server, "grpc", "flood")
    times = await attacked(server, name, full if FULL else short)
    assert await cut_off(server, "grpc", "flood") == floods + len(times)
    for became in times:
        assert became["goaway"] in (CALM, None)
        assert became["goaway"] == CALM or not became.get("all")


@pytest.mark.parametrize(
    ("name", "short", "full", "statuses"),
    [
        ("prefix", 50, 100, {EXHAUSTED}),
        ("gzip_bombs", 5, 50, {EXHAUSTED}),
        ("many_streams", 300, 300, {OK, "3", "reset 7"}),
        ("large_headers", 5, 50, {EXHAUSTED}),
    ],
)
async def test_what_is_too_large_over_grpc(
    server: ServerProcess, name: str, short: int, full: int, statuses: set[str]
) -> None:
    """Each call has the status that says so, and their connection lives to tell."""
    size = full if FULL else short
    for became in await attacked(server, name, size):
        assert sum(became["statuses"].values()) == size
        assert set(became["statuses"]) <= statuses
        if name == "many_streams":
            assert became["statuses"]["reset 7"] == size - 100
        if "http" in became:
            assert became["http"] == {"431": size}


async def test_gzip_bombs_over_http(server: ServerProcess) -> None:
    """413 for each, however many come at once."""
    size = 50 if FULL else 8
    for became in await attacked(server, "gzip_bombs_over_http", size):
        assert became["statuses"] == {"413": size}


async def test_silent_sockets(server: ServerProcess) -> None:
    """All are closed, in time."""
    size = 500 if FULL else 50
    for became in await attacked(server, "silent", size):
        assert became["ended"] == {"ended": 2 * size}
    assert await cut_off(server, "grpc", "slow") >= size
    assert await cut_off(server, "http", "slow") >= size


async def test_slow_writers(server: ServerProcess) -> None:
    """DEADLINE_EXCEEDED, or 408."""
    size = 100 if FULL else 10
    for became in await attacked(server, "slow_writers", size):
        assert became["http"] == {"408": 2 * size}
        assert became["statuses"] == {DEADLINE: size}


async def test_requests_that_never_come_whole(server: ServerProcess) -> None:
    """Those that stand still make room for others: RESOURCE_EXHAUSTED, or DEADLINE_EXCEEDED for those that
    still had room when their time was over."""
    for became in await attacked(server, "half_requests", 10 if FULL else 1):
        assert became["statuses"]
        assert set(became["statuses"]) <= {EXHAUSTED, DEADLINE}


async def test_slow_readers(server: ServerProcess) -> None:
    """They are not read from, and then cut off."""
    size = 5 if FULL else 1
    for became in await attacked(server, "slow_readers", size):
        assert became["ended"] == 2 * size
    assert await cut_off(server, "grpc", "unread") >= size
    assert await cut_off(server, "http", "unread") >= size


async def test_more_connections_than_the_ports_take(server: ServerProcess) -> None:
    """600 of each; who is served already goes on."""
    for became in await attacked(server, "too_many_connections", 1000 if FULL else 700):
        assert became["open"] <= 2 * 600
    assert await cut_off(server, "grpc", "too_many")
    assert await cut_off(server, "http", "too_many")


async def test_answers_that_no_window_lets_out(server: ServerProcess) -> None:
    """They are given up: for want of room, or when their time is over; some are refused at once."""
    size = 4 if FULL else 1
    for became in await attacked(server, "window_zero", size):
        assert sum(became["statuses"].values()) == 60 * size
        assert set(became["statuses"]) <= {"reset 8", EXHAUSTED}


async def test_connections_that_need_no_key(server: ServerProcess) -> None:
    """They lock nobody out, since here no key is needed for anything: those that do nothing of use make room."""
    for became in await attacked(server, "watches", 1005 if FULL else 605):
        assert became["statuses"] == ["3"]


async def test_tls_handshakes_that_are_left_half_open(postgres: str, tmp_path: Path) -> None:
    """They use up no open files that others need: of 800 there are always some left."""
    pki = Pki.make(tmp_path)
    async with (
        fresh_database(postgres) as url,
        serve(tmp_path, database_url=url, log_level="INFO", open_files="800", **pki.settings) as server,
    ):
        channel = Channel("127.0.0.1", server.grpc_port, ssl=pki.client())
        for became in await attacked(server, "half_open_tls", 600, channel):
            assert became == {"sockets": 1200, "answered": 2}
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 750


async def test_every_attack_has_a_test() -> None:
    """None is written and forgotten."""
    source = Path(__file__).read_text()
    assert [name for name in ATTACKS if f'"{name}"' not in source] == []
