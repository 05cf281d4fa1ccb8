"""A client's names, as its certificate says them over a real connection."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ingestor.transport.tls import ALPN_HTTP, Certificates, TlsFiles, peer_names
from tests.certificates import Pki

SPIFFE = "spiffe://example.org/billing"


def leaf(pki: Pki, *alternative: x509.GeneralName) -> trustme.LeafCert:
    """One with a common name, and these others; trustme does not make URIs."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(pki.ca.cert_pem.bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "billing")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    certificate = builder.sign(load_pem_private_key(pki.ca.private_key_pem.bytes(), None), hashes.SHA256())  # type: ignore[arg-type]
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(pem, certificate.public_bytes(Encoding.PEM), [])


async def _names(pki: Pki, leaf: trustme.LeafCert | None) -> frozenset[str]:
    """What the server's side of a connection says of the client."""
    found: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(peer_names(writer.transport))
        writer.close()

    paths = TlsFiles(pki.folder / "server.pem", pki.folder / "server.key", pki.ca_file, client_optional=True)
    context = Certificates(paths).context(ALPN_HTTP)
    async with await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pki.client(leaf))
        names = await asyncio.wait_for(found, 20)
        writer.close()
    return names


async def test_names_of_a_certificate(pki: Pki) -> None:
    """DNS names and URIs, as SPIFFE has them; the common name only where there are no others of any kind; nothing
    else of the subject."""
    uri, dns = x509.UniformResourceIdentifier(SPIFFE), x509.DNSName("b.example")
    assert await _names(pki, leaf(pki, uri, dns)) == {SPIFFE, "b.example"}
    assert await _names(pki, leaf(pki, x509.RFC822Name("a@b.example"))) == frozenset()
    assert await _names(pki, leaf(pki)) == {"billing"}


async def test_without_a_certificate_there_are_none(pki: Pki) -> None:
    """Nor without a connection, or without TLS."""
    assert await _names(pki, None) == frozenset()
    assert peer_names(None) == frozenset()
