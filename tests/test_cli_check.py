"""`ingestor check` finds what `serve` would fail with, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.server_process import ROOT, environment, run


async def test_check_says_what_would_be_used_and_changes_nothing(tmp_path: Path, database_url: str) -> None:
    """Settings, database, pending migrations, ports; a misspelt variable is pointed out."""
    options = {"database_url": database_url, "grpc_port": "0", "http_port": "0", "batchsize": "7"}
    for _ in range(2):
        code, out, _ = await run("check", cwd=tmp_path, **options)
        assert code == 0
        assert "PostgreSQL 18" in out
        assert "metrics is not there yet" in out
        assert "0002 metrics" in out
        assert "INGESTOR_BATCHSIZE is none of ours" in out


async def test_check_creates_no_data_dir(open_path: Path) -> None:
    """An embedded database is created by serve, not by a look."""
    code, out, _ = await run(
        "check", cwd=open_path, data_dir=str(open_path / "data"), grpc_port="0", http_port="0"
    )
    assert code == 0
    assert f"to be created in {open_path}/data" in out
    assert not (open_path / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody else")
async def test_check_sees_that_postgresql_may_not_pass(tmp_path: Path) -> None:
    """pytest's tmp_path lies under a directory of mode 0700, which the user that PostgreSQL runs as can't enter."""
    for command in ("check", "serve"):
        code, out, err = await run(
            command, cwd=tmp_path, data_dir=str(tmp_path / "data"), grpc_port="0", http_port="0"
        )
        assert code == 5
        assert "who cannot enter" in out + err
        assert not (tmp_path / "data").exists()


AS_NOBODY = """
import encodings.idna, os, sys
import uvloop
from ingestor import commands, demo
from ingestor.cli import main, parser, running
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


def as_nobody_in(folder: Path, code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as nobody, in `folder`, once it has imported what root alone may read."""
    script = AS_NOBODY + code
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**environment(**settings), "PYTHONPATH": f"{ROOT}:{ROOT}/gen"},
        capture_output=True,
        text=True,
        check=False,
    )


CHECK = "sys.exit(main(['check', '--grpc-port', '0', '--http-port', '0']))"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_data_dir_that_one_may_not_enter_is_one_line(tmp_path: Path, open_path: Path) -> None:
    """`check` as somebody who may not even look."""
    tmp_path.chmod(0o700)
    done = as_nobody_in(open_path, CHECK, data_dir=str(tmp_path / "x"))
    assert done.returncode == 5, done.stderr
    assert done.stderr == ""
    assert "permission denied" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_env_file_that_one_may_not_read_is_one_line(tmp_path: Path, open_path: Path) -> None:
    """Neither the file, nor the current directory."""
    (open_path / ".env").write_text("INGESTOR_BATCH_SIZE=1\n")
    (open_path / ".env").chmod(0o600)
    tmp_path.chmod(0o700)
    for folder in (open_path, tmp_path):
        done = as_nobody_in(folder, CHECK)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "ingestor: .env can't be read: permission denied\n"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE TABLE metrics (a int)", "can't be adopted"),
        ("CREATE TABLE label_sets (a int)", "already exists"),
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "is read-only"),
    ],
)
async def test_check_finds_what_serve_would_fail_with(
    tmp_path: Path, database_url: str, statement: str, problem: str
) -> None:
    """Exit code 3, and the database as it was."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(statement.format(await connection.fetchval("SELECT current_database()")))
    for _ in range(2):
        code, out, _ = await run(
            "check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0"
        )
        assert code == 3, out
        assert problem in out
        assert await connection.fetchval("SELECT to_regclass('ingestor_migrations')") is None
    await connection.close()


async def test_check_finds_a_role_that_may_not_migrate(tmp_path: Path, database_url: str) -> None:
    """A role without CREATE on the schema, while migrations are pending."""
    code, out = await checked_by_a_role(tmp_path, database_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert code == 3
    assert "permission denied for schema public" in out


async def test_misspelt_names_in_the_env_file_are_pointed_out(tmp_path: Path, database_url: str) -> None:
    """As those of the environment are."""
    (tmp_path / ".env").write_text("INGESTOR_BATCHSIZE=7\nOTHER=1\n")
    _, out, _ = await run("check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0")
    assert "INGESTOR_BATCHSIZE is none of ours" in out
    assert "OTHER" not in out


async def test_check_waits_for_no_lock(tmp_path: Path, database_url: str) -> None:
    """A table to be adopted, which somebody holds: it can't be tried, and nobody is kept waiting for long."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "CREATE TABLE metrics (time timestamptz, service_name text, metric_name text, value float8)"
    )
    async with connection.transaction():
        await connection.execute("LOCK TABLE metrics IN ROW EXCLUSIVE MODE")
        code, out, _ = await run(
            "check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0"
        )
    await connection.close()
    assert code == 0, out
    assert "migrations to apply: 0001" in out


async def checked_by_a_role(tmp_path: Path, database_url: str, sql: str) -> tuple[int, str]:
    """Exit code and output of `check` as a role of its own, after this `sql`."""
    connection = await asyncpg.connect(database_url)
    role = f"reader_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {role} LOGIN; {sql.format(role=role)}")
    url = database_url.replace("user=ingestor", f"user={role}")
    try:
        code, out, _ = await run("check", cwd=tmp_path, database_url=url, grpc_port="0", http_port="0")
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
    return code, out


async def test_check_finds_a_role_that_may_not_store(tmp_path: Path, database_url: str) -> None:
    """In a database that is migrated, with the GRANT that is missing."""
    await run("migrate", cwd=tmp_path, database_url=database_url)
    code, out = await checked_by_a_role(
        tmp_path, database_url, "GRANT SELECT ON ingestor_migrations TO {role}"
    )
    assert code == 3
    assert "GRANT INSERT ON metrics" in out
