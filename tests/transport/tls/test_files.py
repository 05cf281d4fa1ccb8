"""What is wrong with TLS files is said in one line that names the setting."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ingestor.errors import BadSetting
from ingestor.transport.tls import TlsFiles, warnings
from ingestor.transport.tls.validity import validity
from tests.certificates import Pki
from tests.server_process import run


def files(pki: Pki) -> TlsFiles:
    return TlsFiles(pki.folder / "server.pem", pki.folder / "server.key", pki.ca_file)


def encrypt(pki: Pki, form: PrivateFormat) -> None:
    path = pki.folder / "server.key"
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))


def replace_key(pki: Pki) -> None:
    (pki.folder / "server.key").write_bytes(pki.ca.issue_cert("other").private_key_pem.bytes())


def swap(pki: Pki) -> None:
    (pki.folder / "server.key").write_bytes((pki.folder / "server.pem").read_bytes())


def pipe(pki: Pki, name: str) -> None:
    (pki.folder / name).unlink()
    os.mkfifo(pki.folder / name)


MISTAKES: dict[str, tuple[Callable[[Pki], object], str]] = {
    "no certificate file": (lambda pki: (pki.folder / "server.pem").unlink(), "TLS_CERT .*no such file"),
    "no key file": (lambda pki: (pki.folder / "server.key").unlink(), "TLS_KEY .*no such file"),
    "no CA file": (lambda pki: pki.ca_file.unlink(), "TLS_CLIENT_CA .*no such file"),
    "text for a certificate": (lambda pki: (pki.folder / "server.pem").write_text("hm"), "TLS_CERT"),
    "text for a key": (lambda pki: (pki.folder / "server.key").write_text("hm"), "TLS_KEY .*no private key"),
    "text for a CA": (lambda pki: pki.ca_file.write_text("hm"), "TLS_CLIENT_CA .*no certificates"),
    "the certificate as its key": (swap, "TLS_KEY .*no private key in PEM"),
    "another key": (replace_key, "TLS_KEY .* is not the key of the certificate in TLS_CERT"),
    "an encrypted key": (lambda pki: encrypt(pki, PrivateFormat.PKCS8), "TLS_KEY .* is encrypted"),
    "one of the older form": (
        lambda pki: encrypt(pki, PrivateFormat.TraditionalOpenSSL),
        "TLS_KEY .* is encrypted",
    ),
    "a pipe for a certificate": (lambda pki: pipe(pki, "server.pem"), "TLS_CERT .* is no file"),
    "a pipe for a CA": (lambda pki: pipe(pki, "ca.pem"), "TLS_CLIENT_CA .* is no file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(pki: Pki, mistake: str) -> None:
    """Each names the setting and the file, and none asks for a passphrase or waits."""
    make, told = MISTAKES[mistake]
    files(pki).context(["h2"])
    make(pki)
    with pytest.raises(BadSetting, match=told) as error:
        files(pki).context(["h2"])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as somebody else")
def test_a_key_that_is_not_ours_to_read(pki: Pki, open_path: Path) -> None:
    """The user is named whom the file does not let in."""
    for name in ("server.pem", "server.key", "ca.pem"):
        (open_path / name).write_bytes((pki.folder / name).read_bytes())
        (open_path / name).chmod(0o644)
    (open_path / "server.key").chmod(0o600)
    there = Pki(open_path, pki.ca)
    os.seteuid(65532)
    try:
        with pytest.raises(BadSetting, match=r"TLS_KEY .*server.key can't be read: the user with id 65532"):
            files(there).context(["h2"])
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "expires", [datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]
)
def test_validity(pki: Pki, expires: datetime) -> None:
    """As cryptography reads it, before and after 2050, from when on certificates write years otherwise."""
    pki.serve_with(expires=expires)
    found = files(pki).validity()
    parsed = x509.load_pem_x509_certificate((pki.folder / "server.pem").read_bytes())
    assert (found.begins, found.ends) == (parsed.not_valid_before_utc, parsed.not_valid_after_utc)
    assert found.ends == expires


def test_cut_certificates_have_no_validity(pki: Pki) -> None:
    """Whatever is missing, it is a ValueError, or lies behind what is read."""
    der = x509.load_pem_x509_certificate((pki.folder / "server.pem").read_bytes()).public_bytes(Encoding.DER)
    for size in range(len(der)):
        with pytest.raises(ValueError, match="certificate"):
            validity(der[:size])


def test_warnings(pki: Pki) -> None:
    """Before it holds, after that, and two weeks ahead."""
    ends = datetime(2040, 1, 1, tzinfo=UTC)
    pki.serve_with(expires=ends)
    found = files(pki).validity()
    for at, told in (
        (found.begins - timedelta(days=1), ["valid from"]),
        (ends - timedelta(days=15), []),
        (ends - timedelta(days=13), ["expires on 2040-01-01 00:00 UTC"]),
        (ends, ["expired on 2040-01-01 00:00 UTC"]),
    ):
        lines = warnings(files(pki), found, at)
        assert len(lines) == len(told)
        assert all(part in line for part, line in zip(told, lines, strict=True))


async def test_check_tells_what_serve_would_use(pki: Pki, open_path: Path) -> None:
    """The certificate's end, what clients must show, and an expired certificate as a warning; a wrong key is a
    problem, exit code 2, for `serve` before it does anything else."""
    pki.serve_with(expires=datetime(2030, 1, 1, tzinfo=UTC))
    usual = {"grpc_port": "0", "http_port": "0", "journal": "memory", **pki.mutual}
    code, out, err = await run("check", cwd=open_path, **usual)
    assert (code, err) == (0, "")
    assert "server.pem holds until 2030-01-01; clients must show one of" in out
    pki.serve_with(expires=datetime(2020, 1, 1, tzinfo=UTC))
    assert "warning   the certificate in TLS_CERT" in (await run("check", cwd=open_path, **usual))[1]
    replace_key(pki)
    code, out, _ = await run("check", cwd=open_path, **usual)
    assert (code, "problem   TLS_KEY" in out) == (2, True)
    code, _, err = await run("serve", cwd=open_path, **usual)
    assert (code, err.count("\n"), "is not the key of the certificate" in err) == (2, 1, True)
    assert not (open_path / "data").exists()
