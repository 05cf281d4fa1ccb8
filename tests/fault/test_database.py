"""Faults of the database and of the way to it, under load: whatever happens to it, every answer holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.fault.conftest import Trial, rounds
from tests.fault.harness.gateway import Gateway, gateway
from tests.fault.harness.load import Load
from tests.fault.harness.postgres_server import database_url
from tests.fault.harness.requests import Mix
from tests.fault.harness.verdict import verdict
from tests.fault.harness.wire_proxy import Strike, Verdict, WireProxy, at_commit, in_copy, wire_proxy

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(7_200)]
# What the log may say of a database that is broken on purpose.
_EXPECTED = ("until the schema is mended", "the database refuses metrics")


@asynccontextmanager
async def under_load(
    trial: Trial, mix: Mix | None = None, database: str = "", before: str = ""
) -> AsyncIterator[tuple[Gateway, Load, WireProxy, str]]:
    """A gateway that reaches its database through a proxy, and clients of it; afterwards all is compared.
    `database` is what to say when the database is made, `before` SQL for its tables before there is any load."""
    name = await trial.postgresql.fresh_database(database)
    url = trial.postgresql.url(name)
    async with (
        wire_proxy(trial.postgresql.address) as proxy,
        gateway(trial.home / "gateway", database_url(proxy.address, name), flush_interval="50ms") as server,
    ):
        if before:
            await _until(server, lambda ready: ready["status"] == "ready")
            await trial.postgresql.execute(before, name)
        load = trial.load([server], mix, read_from=url)
        async with load.running():
            await load.until_rows(1)
            yield server, load, proxy, name
        await server.settled()
        trial.report(await verdict(load, url))
        assert not server.complaints(*_EXPECTED)


STRIKES: dict[str, Callable[[], Strike]] = {
    "in mid-COPY": lambda: in_copy(Verdict.CUT_BEFORE, 2_000),
    "before COMMIT": lambda: at_commit(Verdict.CUT_BEFORE),
    "behind COMMIT": lambda: at_commit(Verdict.CUT_BEHIND),
    "the answer to COMMIT": lambda: at_commit(Verdict.LOSE_ANSWER),
}


@pytest.mark.parametrize("strike", STRIKES)
async def test_a_connection_that_is_cut(trial: Trial, strike: str) -> None:
    """Wherever it happens, also where nobody can tell whether the batch is stored: once."""
    async with under_load(trial) as (_, load, proxy, _name):
        for _ in range(rounds(3)):
            struck = proxy.arm(STRIKES[strike]())
            await asyncio.wait_for(struck.struck.wait(), 30)
            await load.until_rows(1)


async def test_a_server_that_is_killed(trial: Trial) -> None:
    """kill -9 of all its processes, and a start on the same files."""
    async with under_load(trial) as (_, load, _proxy, _name):
        for _ in range(rounds(2, 0.2)):
            await asyncio.sleep(trial.chance.uniform(0.0, 0.5))
            await trial.postgresql.kill()
            await asyncio.sleep(trial.chance.uniform(0.0, 1.0))
            await trial.postgresql.start()
            await load.until_rows(1)


async def test_a_network_that_swallows_and_dawdles(trial: Trial) -> None:
    """Stalled for a while, then slow: nothing is lost, and readiness says what is wrong meanwhile."""
    async with under_load(trial) as (server, load, proxy, _name):
        for _ in range(rounds(1, 0.1)):
            proxy.flowing.clear()
            await asyncio.sleep(4)
            assert (await server.ready())["status"] == "degraded"
            proxy.flowing.set()
            proxy.latency_s = 0.05
            await load.until_rows(1)
            await asyncio.sleep(1)
            proxy.latency_s = 0.0


_CUT_OFF = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{0}' AND pid <> pg_backend_pid()"
)
_BREAK: dict[str, tuple[str, str]] = {
    "table": ("ALTER TABLE metrics RENAME TO away", "ALTER TABLE away RENAME TO metrics"),
    "column": ("ALTER TABLE metrics RENAME value TO gone", "ALTER TABLE metrics RENAME gone TO value"),
    "cursors": (
        "ALTER TABLE ingestor_journals RENAME TO away",
        "ALTER TABLE away RENAME TO ingestor_journals",
    ),
    "read-only": (
        f"ALTER DATABASE {{0}} SET default_transaction_read_only = on; {_CUT_OFF}",
        f"ALTER DATABASE {{0}} RESET default_transaction_read_only; {_CUT_OFF}",
    ),
}


@pytest.mark.parametrize("what", _BREAK)
async def test_a_schema_that_is_broken_and_mended(trial: Trial, what: str) -> None:
    """Nothing is given up and nothing dead-lettered; readiness says it, and storing goes on by itself."""
    breaks, mends = _BREAK[what]
    async with under_load(trial) as (server, load, _proxy, name):
        for _ in range(rounds(1, 0.1)):
            within = "postgres" if what == "read-only" else name
            await trial.postgresql.execute(breaks.format(name), within)
            await _until(server, lambda ready: ready["status"] == "degraded")
            await asyncio.sleep(0.5)
            await trial.postgresql.execute(mends.format(name), within)
            await _until(server, lambda ready: ready["status"] == "ready")
            await load.until_rows(1)
        assert (await server.counters())["dead_lettered"] == 0


async def test_a_lock_that_is_held_for_long(trial: Trial) -> None:
    """Metrics are taken and kept meanwhile."""
    async with under_load(trial) as (_, load, _proxy, name), trial.postgresql.connected(name) as holder:
        for _ in range(rounds(1, 0.1)):
            async with holder.transaction():
                await holder.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(trial.chance.uniform(2, 4))
            await load.until_rows(1)


async def test_a_disk_of_the_database_that_is_full_and_freed(trial: Trial, small_disk: Path) -> None:
    """It is the server's trouble, not the rows': nothing is dead-lettered, and storing goes on by itself."""
    folder, ballast = small_disk / "tablespace", small_disk / "ballast"
    folder.mkdir()
    async with (
        trial.postgresql.tablespace(folder) as space,
        under_load(trial, Mix(sizes=(1, 50, 400)), f"TABLESPACE {space}") as (server, load, _proxy, _name),
    ):
        for _ in range(rounds(1, 0.1)):
            await load.until_rows(1)
            _fill(ballast)
            await _until(server, lambda ready: ready["status"] == "degraded")
            assert any("No space left" in line["message"] for line in server.logs)
            await asyncio.sleep(0.5)
            ballast.unlink()
            await _until(server, lambda ready: ready["status"] == "ready")
        assert (await server.counters())["dead_lettered"] == 0


def _fill(ballast: Path) -> None:
    """Takes what is left of its file system."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64 * 1024)):
            pass


POISONS = {
    "check": "ALTER TABLE metrics ADD CONSTRAINT clean CHECK (service_name <> 'poison-row') NOT VALID",
    "trigger": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.service_name = 'poison-row' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION refuse()""",
    "deferred": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.service_name = 'poison-row' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON metrics DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()""",
}


@pytest.mark.parametrize("poison", POISONS)
async def test_poison_and_kills_while_it_is_looked_for(trial: Trial, poison: str) -> None:
    """Each poisoned row is in dead_letters, once, each good one in the table, once; kill -9 meanwhile included."""
    mix = Mix(poisons=["poison-row"], poisoned=0.3)
    async with under_load(trial, mix, before=POISONS[poison]) as (server, load, _proxy, _name):
        for _ in range(rounds(2, 0.2)):
            await load.until_rows(1)
            await asyncio.sleep(trial.chance.uniform(0.0, 0.8))
            await server.kill()
            await server.start()


async def _until(server: Gateway, condition: Callable[[dict[str, object]], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition(await server.ready()):
            await asyncio.sleep(0.05)
