"""Certificates are replaced while the server runs, and a broken pair replaces nothing."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from loguru import logger

from ingestor.transport.grpc import GrpcServer
from ingestor.transport.tls import ALPN_GRPC, Certificates, State, TlsFiles
from tests.certificates import Pki

SOONER, LATER = datetime(2060, 1, 1, tzinfo=UTC), datetime(2070, 1, 1, tzinfo=UTC)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(found.append, level="ERROR", format="{message}")
    yield found
    logger.remove(sink)


@asynccontextmanager
async def serving(certificates: Certificates) -> AsyncIterator[int]:
    """A port that speaks TLS."""
    server = GrpcServer([], message_bytes_max=2**20)
    port = await server.start("127.0.0.1", 0, certificates.context(ALPN_GRPC))
    yield port
    await server.close()


def files(pki: Pki, *, mutual: bool = False) -> TlsFiles:
    return TlsFiles(pki.folder / "server.pem", pki.folder / "server.key", pki.ca_file if mutual else None)


async def connect(port: int, context: ssl.SSLContext) -> tuple[ssl.SSLObject, asyncio.StreamWriter]:
    """Connected and answered: the server's SETTINGS come when it has taken the client's certificate, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        await reader.readexactly(9)
    except (ssl.SSLError, OSError, asyncio.IncompleteReadError):
        writer.close()
        raise
    return writer.get_extra_info("ssl_object"), writer


async def ends_of(port: int, pki: Pki) -> str:
    """When the certificate expires that a new connection gets."""
    agreed, writer = await connect(port, pki.client())
    writer.close()
    certificate = agreed.getpeercert()
    assert certificate is not None
    return str(certificate["notAfter"])


async def test_new_connections_get_the_new_certificate(pki: Pki) -> None:
    """And an open one stays."""
    pki.serve_with(expires=SOONER)
    certificates = Certificates(files(pki))
    async with serving(certificates) as port:
        _, open_writer = await connect(port, pki.client())
        pki.serve_with(expires=LATER)
        assert "2060" in await ends_of(port, pki)
        await certificates.look()
        assert "2070" in await ends_of(port, pki)
        assert certificates.state == State(LATER, None)
        assert not open_writer.is_closing()
        open_writer.close()


async def test_a_broken_pair_replaces_nothing(pki: Pki, logged: list[str]) -> None:
    """Nor does a file that is gone. It is told once in the log, and until it is mended by `problem`; then the new
    pair is taken, even if the files were put back just as they had been seen."""
    pki.serve_with(expires=SOONER)
    told: list[State] = []
    certificates = Certificates(files(pki), told=told.append)
    async with serving(certificates) as port:
        old_key = (pki.folder / "server.key").read_bytes()
        leaf = pki.serve_with(expires=LATER)
        (pki.folder / "server.key").write_bytes(old_key)
        await certificates.look()
        await certificates.look()
        assert "2060" in await ends_of(port, pki)
        assert certificates.state.expires == SOONER
        assert "is not the key" in str(certificates.state.problem)
        assert len(logged) == 1
        (pki.folder / "server.key").unlink()
        await certificates.look()
        assert "no such file" in str(certificates.state.problem)
        pki.write(leaf, "server")
        await certificates.look()
        assert certificates.state == State(LATER, None)
        assert "2070" in await ends_of(port, pki)
    assert [state.problem is None for state in told] == [False, False, True]


async def test_files_behind_a_link_that_moves(pki: Pki) -> None:
    """As secrets are exchanged that Kubernetes mounts: one link leads to another folder from then on."""
    pki.serve_with(expires=SOONER)
    old, new, link = (pki.folder / name for name in ("old", "new", "..data"))
    for folder, expires in ((old, SOONER), (new, LATER)):
        pki.serve_with(expires=expires)
        folder.mkdir()
        for name in ("server.pem", "server.key"):
            shutil.copy(pki.folder / name, folder / name)
    link.symlink_to(old)
    certificates = Certificates(TlsFiles(link / "server.pem", link / "server.key"))
    async with serving(certificates) as port:
        (pki.folder / "next").symlink_to(new)
        (pki.folder / "next").replace(link)
        await certificates.look()
        assert "2070" in await ends_of(port, pki)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_ca_that_is_dropped_lets_nobody_in(pki: Pki, version: ssl.TLSVersion) -> None:
    """A client whose CA is taken out of the list is refused from then on, also when it resumes a session from
    before, for which no certificate is looked at."""
    leaf = pki.ca.issue_cert("client.example")
    trusting = pki.client(leaf, maximum_version=version)
    certificates = Certificates(files(pki, mutual=True))
    async with serving(certificates) as port:
        agreed, writer = await connect(port, trusting)
        session = agreed.session
        assert session is not None
        writer.close()
        pki.ca_file.write_bytes(trustme.CA().cert_pem.bytes())
        await certificates.look()
        resuming = ssl.MemoryBIO(), ssl.MemoryBIO()
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await _resume(port, trusting, session, resuming)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await connect(port, trusting)


async def _resume(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession, ends: tuple[ssl.MemoryBIO, ssl.MemoryBIO]
) -> None:
    """A handshake that offers the session, until the server's first bytes within; asyncio has no way to."""
    incoming, outgoing = ends
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1", session=session)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for step in (tls.do_handshake, lambda: tls.read(9)):
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    data = await reader.read(65536)
                    if not data:
                        raise EOFError from None
                    incoming.write(data)
                else:
                    writer.write(outgoing.read())
                    break
    finally:
        writer.close()


async def test_sessions_are_resumed_while_the_files_stay(pki: Pki) -> None:
    """Which shows that the test above offers one that would be taken."""
    leaf = pki.ca.issue_cert("client.example")
    context = pki.client(leaf, maximum_version=ssl.TLSVersion.TLSv1_2)
    certificates = Certificates(files(pki, mutual=True))
    async with serving(certificates) as port:
        agreed, writer = await connect(port, context)
        session = agreed.session
        writer.close()
        assert session is not None
        await _resume(port, context, session, (ssl.MemoryBIO(), ssl.MemoryBIO()))


async def test_the_files_are_looked_at_again_and_again(pki: Pki) -> None:
    """`keep` tells the state at once, and whenever it has changed."""
    told: asyncio.Queue[State] = asyncio.Queue()
    pki.serve_with(expires=SOONER)
    keeper = asyncio.create_task(Certificates(files(pki), told=told.put_nowait).keep(0.01))
    try:
        assert await asyncio.wait_for(told.get(), 20) == State(SOONER, None)
        (pki.folder / "server.key").write_text("torn")
        assert (await asyncio.wait_for(told.get(), 20)).problem is not None
        pki.serve_with(expires=LATER)
        while (state := await asyncio.wait_for(told.get(), 20)).problem is not None:
            pass  # certificate and key are two files
        assert state == State(LATER, None)
    finally:
        keeper.cancel()


def test_what_can_not_be_used_at_the_start_is_an_error(pki: Pki) -> None:
    """Nothing is served with files that were wrong from the beginning."""
    Path(pki.folder / "server.key").write_text("torn")
    with pytest.raises(Exception, match="TLS_KEY"):
        Certificates(files(pki))
