"""deploy/roles.sql as an operator runs it, and the addresses of the roles that it makes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from ingestor.storage.embedded import binaries

SCRIPT = Path(__file__).resolve().parent.parent / "deploy" / "roles.sql"
MIGRATE, INGEST, READ = "ingestor_migrate", "ingestor_ingest", "ingestor_read"


async def run_script(url: str, **variables: str) -> None:
    """By psql; whatever it says is an error."""
    given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    address = re.sub(r"^postgresql:/(?!/)", "postgresql:///", url)
    psql = binaries.installed().program("psql")
    process = await asyncio.create_subprocess_exec(
        psql,
        "-X",
        *given,
        "-f",
        str(SCRIPT),
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode()) == (0, "")


def as_role(url: str, role: str) -> str:
    """The same database as somebody else, whom the server trusts."""
    if "user=" in url:
        return re.sub(r"user=\w+", f"user={role}", url)
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()


@asynccontextmanager
async def roles(url: str, **variables: str) -> AsyncIterator[None]:
    """The roles of this database; they are the whole server's, so one test at a time has them there."""
    await run_script(url, **variables)
    try:
        yield
    finally:
        connection = await asyncpg.connect(url)
        for role in (INGEST, READ, MIGRATE):
            await connection.execute(f"DROP OWNED BY {role} CASCADE")
            await connection.execute(f"DROP ROLE {role}")
        await connection.close()


async def not_refused(url: str, *statements: str) -> list[str]:
    """Those of the statements that do not fail for want of rights."""
    done = []
    connection = await asyncpg.connect(url)
    for statement in statements:
        try:
            await connection.execute(statement)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError):
            continue
        done.append(statement)
    await connection.close()
    return done


NOT_FOR_INGEST = (
    "SELECT FROM metrics",
    "SELECT FROM labeled_metrics",
    "SELECT value FROM metrics WHERE service_name = 'other'",
    "UPDATE metrics SET value = 0",
    "DELETE FROM metrics",
    "TRUNCATE metrics",
    "DROP TABLE metrics",
    "ALTER TABLE metrics ADD COLUMN x int",
    "CREATE INDEX ON metrics (value)",
    "CREATE TABLE mine (x int)",
    "CREATE TRIGGER t BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "UPDATE label_sets SET labels = '{}'",
    "DELETE FROM label_sets",
    "UPDATE dead_letters SET reason = ''",
    "DELETE FROM dead_letters",
    "UPDATE ingestor_database SET id = gen_random_uuid()",
    "INSERT INTO ingestor_migrations (version, name) VALUES (99, 'x')",
    "CREATE SCHEMA mine",
    "CREATE ROLE other",
    "SET ROLE ingestor_migrate",
    "SET ROLE ingestor_read",
)
NOT_FOR_READ = (
    "INSERT INTO metrics (time, service_name, metric_name, value) VALUES (now(), 's', 'm', 1)",
    "INSERT INTO label_sets (id, labels) VALUES (1, '{}')",
    "UPDATE metrics SET value = 0",
    "DELETE FROM metrics",
    "TRUNCATE metrics",
    "DROP TABLE metrics",
    "DROP VIEW labeled_metrics",
    "CREATE TABLE mine (x int)",
    "SELECT ensure_metrics_partition(now())",
    "SELECT ingestor_summarize_metrics()",
    "SELECT FROM dead_letters",
    "SELECT FROM request_ids",
    "SELECT FROM ingestor_journals",
    "DELETE FROM ingestor_journals",
    "SET ROLE ingestor_ingest",
)

# Views in the place of system tables, whose function takes whatever the rights of who reads them give.
_SHADOWS = """
CREATE FUNCTION pg_temp.taken() RETURNS oid LANGUAGE plpgsql AS $$ BEGIN
  IF current_user <> session_user THEN
    EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA public TO ' || quote_ident(session_user);
  END IF;
  RETURN 0::oid;
END $$;
CREATE TEMP VIEW pg_inherits AS SELECT pg_temp.taken() AS inhrelid, 'public.metrics'::regclass::oid AS inhparent;
CREATE TEMP VIEW pg_index AS SELECT pg_temp.taken() AS indexrelid, 0::oid AS indrelid;
GRANT SELECT ON pg_inherits, pg_index TO PUBLIC;
GRANT EXECUTE ON FUNCTION pg_temp.taken() TO PUBLIC;
DO $$ BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO PUBLIC', pg_my_temp_schema()::regnamespace);
EXCEPTION WHEN insufficient_privilege THEN
END $$;
"""
_OWNERS = ("ensure_metrics_partition(date_trunc('week', now(), 'UTC'))", "ingestor_summarize_metrics()")


async def not_refused_temporary_tables(url: str) -> list[str]:
    """Whether this role can make any; `read` could write where it would be let."""
    return await not_refused(url, "SET default_transaction_read_only = off", "CREATE TEMP TABLE mine (x int)")


async def taken_by_shadows(admin_url: str, role: str) -> bool:
    """Whether this role, with temporary tables and the right to call what runs as its owner, makes that do
    more than it is for."""
    admin, other = await asyncpg.connect(admin_url), await asyncpg.connect(as_role(admin_url, role))
    database = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"GRANT TEMPORARY ON DATABASE {database} TO {role}")
    signatures = "ensure_metrics_partition(timestamptz), ingestor_summarize_metrics()"
    await admin.execute(f"GRANT EXECUTE ON FUNCTION {signatures} TO {role}")
    await other.execute("SET default_transaction_read_only = off")
    await other.execute(_SHADOWS)
    partitioned = await admin.fetchval("SELECT relkind = 'p' FROM pg_class WHERE oid = 'metrics'::regclass")
    for call in _OWNERS if partitioned else _OWNERS[1:]:
        for _ in range(2):  # the partition is there at the second
            await other.execute(f"SELECT {call}")
    taken = await admin.fetchval("SELECT has_table_privilege($1, 'metrics', 'DELETE')", role)
    await admin.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM {role}")
    await other.close()
    await admin.close()
    return bool(taken)
