"""Reads certificate, key and client CAs, and makes contexts of them; a mistake is one line that names the setting.

It never asks for a passphrase (OpenSSL would, on the terminal), and never logs what is in a key.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingestor.errors import BadSetting
from ingestor.transport.tls.validity import Validity, validity

# Those of TLS 1.2 with forward secrecy and authenticated encryption, as HTTP/2 wants them (RFC 9113, 9.2.2); all of
# TLS 1.3 are.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_FILE_BYTES_MAX = 4 * 1024**2
_EXPIRY_WARNED = timedelta(days=14)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The server's certificate (with those between it and its CA behind it) and key, and the CAs of clients, all in
    PEM. With `client_ca`, a client must show a certificate, or may with `client_optional`."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_optional: bool = False

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]

    def validity(self) -> Validity:
        """That of the server's own certificate. Raises BadSetting."""
        match = _CERTIFICATE.search(_read("TLS_CERT", self.certificate))
        if match is None:
            msg = f"TLS_CERT {self.certificate} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
            raise BadSetting(msg)
        try:
            return validity(ssl.PEM_cert_to_DER_cert(match[0].decode("ascii")))
        except ValueError as error:
            msg = f"TLS_CERT {self.certificate} holds no readable certificate: {error}"
            raise BadSetting(msg) from None

    def context(self, protocols: Iterable[str]) -> ssl.SSLContext:
        """A server's context that offers these protocols by ALPN. Raises BadSetting."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(list(protocols))
        self._load_chain(context)
        if self.client_ca is not None:
            self._load_clients(context, self.client_ca)
        return context

    def _load_chain(self, context: ssl.SSLContext) -> None:
        _read("TLS_CERT", self.certificate)  # OpenSSL would wait at a pipe for ever
        key = _read("TLS_KEY", self.key)
        if _ENCRYPTED.search(key):
            msg = (
                f"TLS_KEY {self.key} is encrypted, and a server can't be asked for its passphrase: decrypt it with"
                " `openssl pkey -in FILE -out NEW`, and let nobody else read it"
            )
            raise BadSetting(msg)
        if not _KEY.search(key):
            msg = f"TLS_KEY {self.key} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
            raise BadSetting(msg)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                msg = f"TLS_KEY {self.key} is not the key of the certificate in TLS_CERT {self.certificate}"
            else:
                msg = f"TLS_CERT {self.certificate} with TLS_KEY {self.key} can't be used: {_reason(error)}"
            raise BadSetting(msg) from None
        except OSError as error:  # gone since it was read
            msg = f"TLS_CERT {self.certificate} or TLS_KEY {self.key} can't be read: {_reason(error)}"
            raise BadSetting(msg) from None

    def _load_clients(self, context: ssl.SSLContext, path: Path) -> None:
        pem = _read("TLS_CLIENT_CA", path)
        try:
            context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            msg = f"TLS_CLIENT_CA {path} holds no certificates in PEM that can be used: {_reason(error)}"
            raise BadSetting(msg) from None
        context.verify_mode = ssl.CERT_OPTIONAL if self.client_optional else ssl.CERT_REQUIRED


def warnings(files: TlsFiles, found: Validity, now: datetime | None = None) -> list[str]:
    """What clients will not like about the certificate, or soon won't."""
    now = now or datetime.now(UTC)
    named = f"the certificate in TLS_CERT {files.certificate}"
    if now >= found.ends:
        return [f"{named} expired on {found.ends:%Y-%m-%d %H:%M} UTC: clients refuse it"]
    if now < found.begins:
        return [f"{named} is valid from {found.begins:%Y-%m-%d %H:%M} UTC only: clients refuse it until then"]
    if found.ends - now < _EXPIRY_WARNED:
        return [f"{named} expires on {found.ends:%Y-%m-%d %H:%M} UTC: renew it"]
    return []


def _read(setting: str, path: Path) -> bytes:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _FILE_BYTES_MAX:
            msg = f"{setting} {path} is no file of certificates or keys"
            raise BadSetting(msg)
        return path.read_bytes()
    except PermissionError:
        who = f"the user with id {os.geteuid()}, who runs this, may not"
        msg = f"{setting} {path} can't be read: {who}"
        raise BadSetting(msg) from None
    except OSError as error:
        msg = f"{setting} {path} can't be read: {_reason(error)}"
        raise BadSetting(msg) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "OpenSSL does not say why").replace("_", " ").lower()
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
