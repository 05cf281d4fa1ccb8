"""Certificates for tests: a CA, what it issues, and gateways and clients that use them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme


@dataclass
class Pki:
    """A CA in a directory. The server's certificate is for 127.0.0.1 and localhost."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> Pki:
        pki = cls(folder, trustme.CA())
        pki.ca.cert_pem.write_to_path(str(pki.ca_file))
        pki.serve_with()
        return pki

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def settings(self) -> dict[str, str]:
        """Of a server without client certificates."""
        return {"tls_cert": str(self.folder / "server.pem"), "tls_key": str(self.folder / "server.key")}

    @property
    def mutual(self) -> dict[str, str]:
        """Of one that wants them."""
        return {**self.settings, "tls_client_ca": str(self.ca_file)}

    def serve_with(self, *names: str, expires: datetime | None = None) -> trustme.LeafCert:
        """Writes a new certificate and key for the server over the old ones."""
        leaf = self.ca.issue_cert(
            "127.0.0.1", "localhost", *names, not_after=expires or datetime(2100, 1, 1, tzinfo=UTC)
        )
        self.write(leaf, "server")
        return leaf

    def write(self, leaf: trustme.LeafCert, name: str) -> tuple[Path, Path]:
        """Its certificate and its key as files of that name."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        return certificate, key

    def client(self, leaf: trustme.LeafCert | None = None, **options: Any) -> ssl.SSLContext:
        """A client's context that trusts the CA, and shows the certificate when there is one."""
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        if leaf is not None:
            leaf.configure_cert(context)
        for name, value in options.items():
            setattr(context, name, value)
        return context
