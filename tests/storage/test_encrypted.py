"""Connections to a PostgreSQL that speaks TLS, as DATABASE_URL's sslmode and sslrootcert ask for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingestor.errors import DatabaseProblem
from ingestor.settings import load
from ingestor.storage.embedded import identity
from ingestor.storage.opening import inspect
from tests.certificates import Pki
from tests.fault.harness.ports import free_port
from tests.gateway import gateway
from tests.server_process import run

_INITDB = ("--username=ingestor", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")


def programs() -> Path:
    """Those of a PostgreSQL with OpenSSL: the embedded one has none."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if postgres := shutil.which("postgres"):
        found.append(Path(postgres).parent)
    for folder in sorted(found, reverse=True):
        if (folder / "initdb").exists() and b"libssl.so" in (folder / "postgres").read_bytes():
            return folder
    pytest.skip("the embedded PostgreSQL has no OpenSSL, and there is no other (apt install postgresql)")


@dataclass
class TlsServer:
    """A PostgreSQL that takes nothing but TLS, as localhost, and its CA."""

    port: int
    pki: Pki

    def url(self, parameters: str = "", host: str = "localhost") -> str:
        return f"postgresql://ingestor@{host}:{self.port}/postgres?{parameters}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = programs()
    pki = Pki.make(tmp_path_factory.mktemp("pki"))
    pki.write(pki.ca.issue_cert("localhost"), "server")
    with tempfile.TemporaryDirectory(prefix="ingestor-test-") as home:
        Path(home).chmod(0o711)
        with _running(folder, Path(home) / "data", pki) as port:
            yield TlsServer(port, pki)


@contextmanager
def _running(programs: Path, data: Path, pki: Pki) -> Iterator[int]:
    owner = identity.choose(data)
    data.mkdir(mode=0o700)
    os.chown(data, owner.uid, owner.gid)

    def execute(program: str, *arguments: str) -> None:
        command = [programs / program, "-D", data, *arguments]
        who = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60, **who)  # type: ignore[call-overload]

    execute("initdb", *_INITDB)
    for name in ("server.pem", "server.key"):
        shutil.copy(pki.folder / name, data / name)
        (data / name).chmod(0o600)
        os.chown(data / name, owner.uid, owner.gid)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
    with _started(execute, data) as port:
        yield port


@contextmanager
def _started(execute: Callable[..., None], data: Path) -> Iterator[int]:
    port = free_port()
    given = (
        f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off",
        "ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key",
    )  # fmt: skip
    options = " ".join(f"-c {each}" for each in given)
    execute("pg_ctl", "-w", "-l", str(data / "log"), "-o", options, "start")
    try:
        yield port
    finally:
        execute("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have certificates in ~/.postgresql."""
    monkeypatch.setenv("HOME", str(tmp_path))


pytestmark = pytest.mark.usefixtures("no_home")


@pytest.mark.parametrize("mode", ["", "sslmode=require", "sslmode=verify-full"])
async def test_it_serves_over_an_encrypted_connection(server: TlsServer, mode: str) -> None:
    """Unless told otherwise, too; with verify-full the server must be the one that the CA knows by this name."""
    parameters = f"{mode}&sslrootcert={server.pki.ca_file}" if "verify" in mode else mode
    async with gateway(server.url(parameters)) as served:
        metric = {"serviceName": "s", "metricName": "m", "value": 1, "ack": "ACK_LEVEL_COMMITTED"}
        assert await served.post("/v1/metrics", metric) == (200, {"success": True})
        assert str(served.database.facts).endswith(", TLSv1.3")


async def test_check_says_whether_it_is_encrypted(server: TlsServer, tmp_path: Path) -> None:
    """With the version of TLS; and that an address without a certificate to trust gets no further."""
    usual = {"grpc_port": "0", "http_port": "0"}
    code, out, _ = await run("check", cwd=tmp_path, database_url=server.url("sslmode=require"), **usual)
    assert (code, "role ingestor, TLSv1.3; metrics" in out) == (0, True)


async def test_a_server_that_is_not_the_one_is_not_used(server: TlsServer, tmp_path: Path) -> None:
    """Another CA, another name: one line each, that says what to check. So with a file that is not there."""
    other = Pki.make(tmp_path)
    for url, told in (
        (
            server.url(f"sslmode=verify-full&sslrootcert={other.ca_file}"),
            "not accepted: unable to get",
        ),
        (
            server.url(f"sslmode=verify-full&sslrootcert={server.pki.ca_file}", "127.0.0.1"),
            "IP address mismatch",
        ),
        (server.url("sslmode=verify-full&sslrootcert=/no/such/file"), "sslrootcert"),
        (server.url("sslmode=disable"), "no pg_hba.conf entry"),
    ):
        load({"database_url": url})
        with pytest.raises(DatabaseProblem) as problem:
            await inspect(url)
        assert told in str(problem.value)
        assert "\n" not in str(problem.value)
