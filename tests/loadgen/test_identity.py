"""A load over TLS, with a client certificate and a key, against a real gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingestor.loadgen import LoadPlan, run
from ingestor.loadgen.options import parse
from tests.certificates import Pki
from tests.gateway import gateway
from tests.loadgen.fake_server import FakeServer


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path)


def options(pki: Pki) -> dict[str, Any]:
    certificate, key = pki.write(pki.ca.issue_cert("loadgen"), "client")
    return {"tls_ca": str(pki.ca_file), "tls_cert": str(certificate), "tls_key": str(key)}


@pytest.mark.parametrize("batch", [1, 100])
async def test_mutual_tls_over_both_protocols(database_url: str, pki: Pki, batch: int) -> None:
    """All is acknowledged; without the certificate nothing is, and the report says that no server was reached or
    none answered."""
    tls = options(pki)
    async with gateway(database_url, client=pki.client(), **pki.mutual) as served:
        target: dict[str, Any] = {
            "grpc": served.grpc_address,
            "http": f"https://{served.host}:{served.http_port}",
        }
        plan = LoadPlan(**target, **tls, count=400, batch=batch, connections=2)
        assert (await run(plan)).total.acknowledged == 400
        stranger = plan.model_copy(update={"tls_cert": None, "tls_key": None, "reconnect_s": 0.0})
        assert (await run(stranger)).total.acknowledged == 0


async def test_a_key_is_sent_over_both_protocols(server: FakeServer, plan: Any) -> None:
    """As a bearer of it, and shown in no report."""
    wanted = plan(protocol="both", key="secret-of-mine")
    assert (await run(wanted)).total.acknowledged == 200
    assert set(server.authorized_by) == {
        ("grpc", "Bearer secret-of-mine"),
        ("http", "Bearer secret-of-mine"),
    }
    assert "secret-of-mine" not in str(wanted.model_dump(mode="json")) + repr(wanted)


def test_options(pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key may lie in a file; TLS by halves, and files that are none, are refused with exit code 2."""
    (tmp_path / "key").write_text("of-mine\n")
    plan, _ = parse(["--tls-ca", str(pki.ca_file), "--key", f"@{tmp_path / 'key'}"])
    assert plan.key is not None
    assert plan.key.get_secret_value() == "of-mine"
    assert plan.http == "https://127.0.0.1:8080"
    for wrong in (
        ["--tls-ca", str(tmp_path / "key")],
        ["--tls-ca", "no-such-file"],
        ["--tls-ca", "system", "--tls-cert", "c.pem"],
        ["--http", "https://127.0.0.1:1"],
        ["--key", "@no-such-file"],
    ):
        with pytest.raises(SystemExit) as exit_:
            parse(wrong)
        assert exit_.value.code == 2
        assert "error:" in capsys.readouterr().err.splitlines()[-1]
