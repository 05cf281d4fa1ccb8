"""`ingestor journal`, as an operator runs it."""

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
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.journal_commands import adopt
from ingestor.model import MetricBatch, Row
from ingestor.settings import Settings
from tests.operators_kit import JSON, post, until
from tests.server_process import COMMAND, environment, run, serve


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
