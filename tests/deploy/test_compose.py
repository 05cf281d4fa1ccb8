"""compose.yaml is what Compose takes, hardens what it runs, and starts what there is."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import jsonschema_rs
import pytest
import yaml

from ingestor.settings import parse_duration
from tests.deploy import image
from tests.deploy.grafana import DEPLOY
from tests.gateway import gateway
from tests.roles import INGEST, MIGRATE, READ, roles

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAY = SERVICES["gateway"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "ingestor"]
SECRETS = re.findall(r"^(\w+)=$", (DEPLOY / "compose.env").read_text(), re.MULTILINE)


def test_the_schema() -> None:
    """That of the Compose specification."""
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert not validator.is_valid({"services": {"gateway": {"restarts": "always"}}})


def test_secrets_come_from_the_file_and_are_not_in_it() -> None:
    """Each is asked for by name, and its absence is an error; each name is in the example, without a value."""
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(SECRETS)
    assert len(re.findall(r"\$\{\w+:\?see deploy/compose.env\}", text)) == len(re.findall(r"\$\{", text))
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/ingestor.yaml").read_text())
    asked = {each.get("secureJsonData", {}).get("password") for each in source["datasources"]}
    assert asked - {None} == {"$READ_PASSWORD"}
    assert "READ_PASSWORD" in SERVICES["grafana"]["environment"]
    assert ".env" in (DEPLOY.parent / ".gitignore").read_text().split()


def test_the_command_that_makes_secrets(tmp_path: Path) -> None:
    """As both files and the README have it: every secret, each another, and for its owner's eyes."""
    commands = {
        command
        for name in ("deploy/compose.env", "deploy/compose.yaml", "README.md")
        for command in re.findall(r"\(umask.+\)", (DEPLOY.parent / name).read_text())
    }
    [command] = commands
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "compose.env").write_text((DEPLOY / "compose.env").read_text())
    subprocess.run(["sh", "-ec", command], check=True, cwd=tmp_path, timeout=30)
    made = tmp_path / "deploy" / ".env"
    values = dict(line.split("=") for line in made.read_text().split())
    assert list(values) == SECRETS
    assert len(set(values.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values.values())
    assert made.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_may(name: str) -> None:
    """Its image has a version, no port is published beyond loopback, and it gains no privileges. All but the
    database's have a file system that can't be written, and no capabilities."""
    service = SERVICES[name]
    assert service["image"] == "ingestor" or re.search(r":v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "no-new-privileges:true" in service["security_opt"]
    if name != "timescaledb":
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    runs_on = service.get("restart") == "unless-stopped"
    assert runs_on == ("healthcheck" in service), "what serves is looked at"
    for needed, how in service.get("depends_on", {}).items():
        wanted = "service_healthy" if "healthcheck" in SERVICES[needed] else "service_completed_successfully"
        assert how == {"condition": wanted}


@pytest.mark.parametrize("name", OURS)
def test_settings(name: str) -> None:
    """Each is one, with a value that it can have; and the database is reached as the role that the work takes."""
    environment = {
        key: re.sub(r"\$\{\w+:\?[^}]+\}", "0a", value) for key, value in SERVICES[name]["environment"].items()
    }
    found = image.settings(environment)
    role = {"migrate": MIGRATE, "gateway": INGEST}[name]
    assert found.database_url.get_secret_value() == f"postgresql://{role}:0a@timescaledb:5432/metrics"


def test_the_gateway_fits_its_image() -> None:
    """Ports, volume and program are the image's; the stop lasts longer than the drain."""
    found = image.settings({"INGESTOR_DATABASE_URL": "embedded", "INGESTOR_INSECURE": "true"})
    assert [found.grpc_port, found.http_port] == image.PORTS
    assert [port.split(":")[1:] for port in GATEWAY["ports"]] == [[str(p), str(p)] for p in image.PORTS]
    assert GATEWAY["volumes"] == [f"journal:{image.VOLUME}"]
    assert str(found.data_dir) == image.VOLUME
    grace = parse_duration(GATEWAY["stop_grace_period"])
    drain = parse_duration(GATEWAY["environment"]["INGESTOR_DRAIN_TIMEOUT"])
    assert isinstance(grace, timedelta)
    assert isinstance(drain, timedelta)
    assert grace >= drain + timedelta(seconds=10)
    assert GATEWAY["healthcheck"]["test"][1] == str(Path(image.PROGRAM).with_name("python"))
    targets = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"gateway:{found.http_port}"]}]


async def test_the_health_check(database_url: str) -> None:
    """It is passed by a server that takes metrics, and not by one that is gone."""
    _, python, flag, code = GATEWAY["healthcheck"]["test"]
    assert python.endswith("/bin/python")
    async with gateway(database_url) as served:
        here = code.replace("127.0.0.1:8080", f"127.0.0.1:{served.http_port}")
        assert here != code
        assert await _runs(flag, here)
    assert not await _runs(flag, here)


async def test_roles_have_their_passwords(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment that compose gives to the script."""
    for variable in ("MIGRATE_PASSWORD", "INGEST_PASSWORD", "READ_PASSWORD"):
        assert variable in SERVICES["roles"]["environment"]
        monkeypatch.setenv(variable, "it's 0a")
    async with roles(database_url, serve_reads="on"):
        connection = await asyncpg.connect(database_url)
        made = await connection.fetch(
            "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'SCRAM%' AND rolname = ANY($1)",
            [MIGRATE, INGEST, READ],
        )
        await connection.close()
    assert len(made) == 3
    assert SERVICES["roles"]["entrypoint"] == SERVICES["rights"]["entrypoint"]
    assert SERVICES["roles"]["entrypoint"][:4] == ["psql", "-X", "-v", "serve_reads=on"]


async def _runs(flag: str, code: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        sys.executable, flag, code, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), 20) == 0
