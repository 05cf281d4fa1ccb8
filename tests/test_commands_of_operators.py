"""`ingestor journal` and `ingestor dead-letters`, as an operator runs them."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import subprocess
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from pydantic import SecretStr

from ingestor.errors import JournalProblem
from ingestor.journal.directory import DiskDirectory, DiskFile
from ingestor.journal.log import LogLimits, Record, SegmentLog
from ingestor.journal_commands import adopt
from ingestor.model import MetricBatch, Row
from ingestor.settings import Settings
from ingestor.storage.opening import open_database
from tests.server_process import COMMAND, ServerProcess, environment, run, serve

JSON = {"Content-Type": "application/json"}
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}


async def post(server: ServerProcess, *values: float, service: str = "s") -> None:
    metrics = [{**GOOD, "serviceName": service, "value": value, "labels": {"a": "ü"}} for value in values]
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{server.http_url}/v1/metrics:batch", data=json.dumps({"metrics": metrics}), headers=JSON
        ) as answer,
    ):
        assert answer.status == 200


async def until(server: ServerProcess, line: str) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{server.http_url}/metrics") as answer:
                if line in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def status(cwd: Path) -> dict[str, object]:
    code, out, _ = await run("journal", "status", "--json", cwd=cwd)
    assert code == 0
    found: dict[str, object] = json.loads(out)
    return found


async def test_the_journal_is_read_while_a_server_uses_it(open_path: Path, database_url: str) -> None:
    """Status, verify and export; what is pending is what the database has not."""
    connection = await asyncpg.connect(database_url)
    async with serve(open_path, database_url=database_url) as server:
        await post(server, 1, 2)
        await until(server, "ingestor_metrics_committed_total 2.0")
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            await post(server, 3, 4, 5)
            told = await status(open_path)
            assert told["pending_metrics"] in (3, 5)  # where the cursor stands is noted now and then
            assert told["damaged_files"] == []
            code, out, _ = await run("journal", "verify", cwd=open_path)
            assert (code, out.startswith("sound")) == (0, True)
            await server.stop(signal.SIGKILL)
    await connection.close()
    code, out, _ = await run("journal", "export", cwd=open_path)
    rows = [metric for line in out.splitlines() for metric in json.loads(line)["metrics"]]
    assert sorted(row["value"] for row in rows) == [1, 2, 3, 4, 5]
    assert all(row["labels"] == {"a": "ü"} for row in rows)
    code, out, _ = await run("journal", "status", cwd=open_path)
    assert (code, "pending metrics" in out) == (0, True)


async def test_what_is_exported_can_be_sent_again(
    open_path: Path, database_url: str, another_url: str
) -> None:
    """Line by line, to another server."""
    async with serve(open_path, database_url=database_url, flush_interval="1h") as server:
        await post(server, *map(float, range(2_500)))
        await server.stop(signal.SIGKILL)
    code, out, _ = await run("journal", "export", "--pending", cwd=open_path)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    async with (
        serve(open_path, database_url=another_url, data_dir=str(open_path / "other")) as server,
        aiohttp.ClientSession() as http,
    ):
        for line in lines:
            async with http.post(f"{server.http_url}/v1/metrics:batch", data=line, headers=JSON) as answer:
                assert answer.status == 200
        await until(server, "ingestor_metrics_committed_total 2500.0")


async def test_damage_is_found_and_torn_ends_are_no_damage(open_path: Path, database_url: str) -> None:
    """Exit code 1 for what was acknowledged and can't be read, 0 for an append that never ended."""
    async with serve(open_path, database_url=database_url, flush_interval="1h") as server:
        for value in (1, 2, 3):
            await post(server, value)
        await server.stop(signal.SIGKILL)
    [file] = (open_path / "data" / "journal").glob("*.segment")
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    code, out, _ = await run("journal", "verify", cwd=open_path)
    assert (code, out.split()[0]) == (0, "torn")
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    code, out, _ = await run("journal", "verify", cwd=open_path)
    assert code == 1
    assert out.startswith(f"damaged   {file.name}\n")
    assert "which are not known to be committed" in out
    code, out, err = await run("journal", "export", cwd=open_path)
    assert (code, len(out.splitlines())) == (1, 2)
    assert err == "ingestor: damaged or missing, and not exported: entries 1\n"


async def test_without_a_journal_there_is_nothing_to_say(tmp_path: Path) -> None:
    """And nothing is made."""
    for action in ("status", "verify"):
        code, out, _ = await run("journal", action, cwd=tmp_path)
        assert (code, out.startswith("no journal")) == (0, True)
    assert await run("journal", "export", cwd=tmp_path) == (0, "", "")
    assert not (tmp_path / "data").exists()


async def test_a_reader_that_leaves_is_no_accident(open_path: Path, database_url: str) -> None:
    """`| head -1`: one line on stderr, and no traceback."""
    async with serve(open_path, database_url=database_url) as server:
        for start in range(0, 40_000, 4_000):
            await post(server, *map(float, range(start, start + 4_000)))
        await server.stop(signal.SIGTERM)
    command = [*COMMAND, "journal", "export", "--data-dir", str(open_path / "data")]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdout.read(100)
    process.stdout._transport.close()  # type: ignore[attr-defined] # there is no other way to leave
    err = await process.stderr.read()
    assert await process.wait() == 1
    assert err.decode().count("\n") == 1


async def test_a_journal_is_given_to_another_database(
    open_path: Path, database_url: str, another_url: str
) -> None:
    """What the first one has not is stored in the second; a server that uses it is told of."""
    async with serve(open_path, database_url=database_url, flush_interval="1h") as server:
        await post(server, 1, 2)
        code, _, err = await run("journal", "adopt", cwd=open_path, database_url=another_url)
        assert (code, str(server.process.pid) in err) == (5, True)
        await server.stop(signal.SIGKILL)
    code, out, _ = await run("journal", "adopt", cwd=open_path, database_url=another_url)
    assert (code, "2 metrics" in out) == (0, True)
    code, out, _ = await run("journal", "adopt", cwd=open_path, database_url=another_url)
    assert (code, "nothing to do" in out) == (0, True)
    async with serve(open_path, database_url=another_url) as server:
        await until(server, "ingestor_metrics_committed_total 2.0")


@pytest.mark.parametrize(
    "made", ["", "data", "data/journal"], ids=["nothing", "DATA_DIR", "an empty directory"]
)
async def test_only_a_journal_that_is_there_is_given_away(open_path: Path, made: str) -> None:
    """A mistyped DATA_DIR gets neither a journal nor an embedded database."""
    (open_path / made).mkdir(parents=True, exist_ok=True)
    before = sorted(open_path.rglob("*"))
    code, out, err = await run("journal", "adopt", cwd=open_path, database_url="embedded")
    assert (code, out) == (5, "")
    assert err == f"ingestor: there is no journal in {open_path / 'data'}: check DATA_DIR\n"
    assert sorted(open_path.rglob("*")) == before


async def test_a_disk_that_fails_while_a_journal_is_given_away_is_one_line(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised has exit code 5; the journal stays whose it was."""
    log = SegmentLog.open(DiskDirectory.open(tmp_path), LogLimits(1024**2))
    log.append([Record(1, MetricBatch.of_row(Row(0, "s", "m", 1.0), {}), 0)])
    log.close()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(DiskFile, "write", fail)
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(database_url))
    with pytest.raises(JournalProblem, match="can't be used: input/output error") as told:
        await adopt(settings)
    assert told.value.exit_code == 5
    monkeypatch.undo()
    log = SegmentLog.open(DiskDirectory.open(tmp_path), LogLimits(1024**2))
    assert (log.database, log.last) == (None, 1)
    log.close()


async def test_what_another_database_stored_meanwhile_is_not_stored_in_the_first(
    open_path: Path, database_url: str, another_url: str
) -> None:
    """The journal goes to a second database and back, by starts alone and by `adopt`: each has its own rows."""
    for value, url in enumerate([database_url, another_url, database_url], 1):
        async with serve(open_path, database_url=url) as server:
            await post(server, value)
            await until(server, "ingestor_metrics_committed_total 1.0")
            assert await server.stop(signal.SIGTERM) == 0
    code, out, _ = await run("journal", "adopt", cwd=open_path, database_url=another_url)
    assert (code, "stores 0 metrics" in out) == (0, True)
    async with serve(open_path, database_url=another_url) as server:
        await post(server, 4)
        await until(server, "ingestor_metrics_committed_total 1.0")
    for url, values in ((database_url, [1, 3]), (another_url, [2, 4])):
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT value FROM metrics ORDER BY value")
        assert [row["value"] for row in rows] == values
        await connection.close()


@pytest.fixture
async def letters(open_path: Path, database_url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Three letters: 11 and 12 of service `a`, 13 of `b`; and one good row, 1."""
    connection = await asyncpg.connect(database_url)
    async with serve(open_path, database_url=database_url) as server:
        await connection.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 10)")
        await post(server, 1, 11, 12, service="a")
        await post(server, 13, service="b")
        await until(server, "ingestor_metrics_dead_lettered_total 3.0")
    return connection


async def test_dead_letters_are_looked_at(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The newest first; all of one; unknown ids are named."""
    code, out, _ = await run("dead-letters", "list", cwd=open_path, database_url=database_url)
    assert (code, len(out.splitlines()), "23514" in out) == (0, 3, True)
    flags = ["--service", "a", "--limit", "1", "--json"]
    code, out, _ = await run("dead-letters", "list", *flags, cwd=open_path, database_url=database_url)
    [found] = map(json.loads, out.splitlines())
    assert found["metric"]["value"] == 12
    code, out, _ = await run(
        "dead-letters", "show", str(found["id"]), cwd=open_path, database_url=database_url
    )
    assert json.loads(out) == found
    code, _, err = await run("dead-letters", "show", "999", cwd=open_path, database_url=database_url)
    assert (code, "999" in err) == (2, True)
    await letters.close()


async def test_dead_letters_are_stored_again(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Those that the database takes now leave the table, the others stay, with exit code 1."""

    async def replay(*arguments: str) -> tuple[int, str]:
        code, out, err = await run(
            "dead-letters", "replay", *arguments, cwd=open_path, database_url=database_url
        )
        return code, out + err

    assert (await replay())[0] == 2
    assert await replay("--all") == (1, "0 stored, 3 refused again\n")
    await letters.execute(
        "ALTER TABLE metrics DROP CONSTRAINT low; ALTER TABLE metrics ADD CHECK (value < 13)"
    )
    assert await replay("--all") == (1, "2 stored, 1 refused again\n")
    rows = await letters.fetch("SELECT value, labels::text AS labels FROM labeled_metrics ORDER BY value")
    assert [(row["value"], row["labels"]) for row in rows] == [(n, '{"a": "ü"}') for n in (1, 11, 12)]
    assert await letters.fetchval("SELECT count(*) FROM dead_letters") == 1
    await letters.close()


async def test_series_of_dead_letters_are_listed_once_they_are_stored(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record]
) -> None:
    """With the times of the rows that are stored, and of no other."""
    await letters.execute("DELETE FROM metric_series; ALTER TABLE metrics DROP CONSTRAINT low")
    await letters.execute("ALTER TABLE metrics ADD CHECK (value < 13)")
    code, _, _ = await run("dead-letters", "replay", "--all", cwd=open_path, database_url=database_url)
    assert code == 1
    found = await letters.fetch("SELECT * FROM metric_series ORDER BY service_name")
    expected = await letters.fetch(
        "SELECT service_name, metric_name, min(time) AS first_time, max(time) AS last_time FROM metrics"
        " WHERE value > 10 GROUP BY 1, 2 ORDER BY 1"
    )
    assert found == expected
    assert len(found) == 1
    await letters.close()


async def test_dead_letters_are_deleted_only_with_a_yes(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record]
) -> None:
    """And only those that were meant."""
    where = {"cwd": open_path, "database_url": database_url}
    code, _, err = await run("dead-letters", "purge", "--all", **where)  # type: ignore[arg-type]
    assert (code, "--yes" in err) == (2, True)
    code, out, _ = await run("dead-letters", "purge", "--all", "--service", "a", "--yes", **where)  # type: ignore[arg-type]
    assert (code, out) == (0, "2 deleted\n")
    assert await letters.fetchval("SELECT metric->>'value' FROM dead_letters") == "13.0"
    await letters.close()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("replay 1 2 --service a", "--service can't"),
        ("purge 1 --service a --yes", "--service can't"),
        ("purge 1 --before 2026-01-02 --yes", "--before can't"),
        ("purge 1 --service a --before 2026-01-02 --yes", "--service and --before can't"),
    ],
)
async def test_ids_and_filters_together_are_refused(tmp_path: Path, flags: str, named: str) -> None:
    """Whoever gives both believes that the filter holds, and would lose what it was to spare."""
    code, out, err = await run(
        "dead-letters", *flags.split(), cwd=tmp_path, database_url="postgresql://127.0.0.1:1/d"
    )
    assert (code, out) == (2, "")
    assert err == f"ingestor: {named} be combined with ids, only with --all\n"


async def test_the_embedded_database_of_a_running_server_is_asked(open_path: Path) -> None:
    """By its socket: it is not started twice."""
    async with serve(open_path, database_url="embedded"):
        code, out, err = await run("dead-letters", "list", cwd=open_path, database_url="embedded")
        assert (code, out) == (0, "no dead letters\n"), err


DEAD_LETTERS = {
    "list": ["list"],
    "show": ["show", "1"],
    "replay": ["replay", "--all"],
    "purge": ["purge", "--all", "--yes"],
}


@pytest.mark.parametrize("action", DEAD_LETTERS)
@pytest.mark.parametrize("schema", ["none", "older", "newer"])
async def test_dead_letters_change_no_schema(
    tmp_path: Path, database_url: str, action: str, schema: str
) -> None:
    """An older one, and none, they leave to `migrate`, a newer one to a newer release; nothing is changed."""
    connection = await asyncpg.connect(database_url)
    if schema != "none":
        await (await open_database(database_url)).close(5)
    if schema == "older":
        await connection.execute(
            "DROP TABLE dead_letters; DELETE FROM ingestor_migrations WHERE name = 'dead_letters'"
        )
    elif schema == "newer":
        await connection.execute("INSERT INTO ingestor_migrations VALUES (9999, 'from_the_future')")
    before = await _relations(connection)
    code, out, err = await run("dead-letters", *DEAD_LETTERS[action], cwd=tmp_path, database_url=database_url)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert ("run that release" if schema == "newer" else "0006 dead_letters") in err
    assert schema == "newer" or "): check DATABASE_URL" in err
    assert ("ingestor migrate" in err) == (schema != "newer")
    assert await _relations(connection) == before
    await connection.close()


async def _relations(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    rows = await connection.fetch("SELECT oid::regclass::text AS name FROM pg_class ORDER BY 1")
    return [row["name"] for row in rows]


async def test_who_only_looks_needs_no_rights_to_write(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A role that may read will do, and so will a standby; what is missing is named. Deleting needs more."""
    name = await letters.fetchval("SELECT current_database()")
    role = f"reader_{name}"
    await letters.execute(
        f"CREATE ROLE {role} LOGIN; ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    as_role = database_url.replace("ingestor@", f"{role}@").replace("user=ingestor", f"user={role}")
    try:
        code, _, err = await run("dead-letters", "list", cwd=open_path, database_url=as_role)
        assert (code, err.count("\n")) == (3, 1)
        await letters.execute(err.rpartition("rights to look: ")[2])
        code, out, _ = await run("dead-letters", "list", cwd=open_path, database_url=as_role)
        assert (code, len(out.splitlines())) == (0, 3)
        for url in (as_role, database_url):
            code, _, err = await run(
                "dead-letters", "purge", "--all", "--yes", cwd=open_path, database_url=url
            )
            assert (code, "read-only" in err) == (3, True)
    finally:
        await letters.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await letters.close()


@pytest.mark.parametrize("action", DEAD_LETTERS)
async def test_dead_letters_make_no_embedded_database(open_path: Path, action: str) -> None:
    """With a mistyped DATA_DIR there is none, and that is said."""
    code, out, err = await run("dead-letters", *DEAD_LETTERS[action], cwd=open_path, database_url="embedded")
    assert (code, out) == (5, "")
    assert err.startswith(f"ingestor: there is no embedded database in {open_path / 'data'}: ")
    assert list(open_path.iterdir()) == []
