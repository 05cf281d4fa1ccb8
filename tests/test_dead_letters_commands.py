"""`ingestor dead-letters`, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from ingestor.storage.opening import open_database
from tests.operators_kit import post, until
from tests.server_process import begin, environment, run, serve


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


@pytest.mark.parametrize("action", ["list", "list --json", "show"])
async def test_dead_letters_are_shown_in_any_encoding(
    open_path: Path, database_url: str, letters: asyncpg.Connection[asyncpg.Record], action: str
) -> None:
    """What it lacks is escaped, and JSON stays JSON."""
    named = """
        UPDATE dead_letters SET metric = (metric::jsonb || '{"service_name": "ünï😀"}')::json RETURNING id
    """
    found = await letters.fetch(named)
    ids = [str(found[0]["id"])] if action == "show" else []
    await letters.close()
    env = {**environment(database_url=database_url), "PYTHONIOENCODING": "ascii"}
    process = await begin("dead-letters", *action.split(), *ids, cwd=open_path, env=env)
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, err) == (0, b"")
    text = out.decode("ascii")
    assert "\\u00fcn\\u00ef\\ud83d\\ude00" in text
    if action != "list":
        shown = json.loads(text if action == "show" else text.splitlines()[0])
        assert shown["metric"]["service_name"] == "ünï😀"


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
