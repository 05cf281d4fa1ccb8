"""The manifests are what Kubernetes takes, and agree with each other, the image and the server."""

from __future__ import annotations

from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml
from pydantic import ByteSize, TypeAdapter

from ingestor import __version__
from tests.deploy import image
from tests.deploy.grafana import DEPLOY
from tests.gateway import gateway

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for manifest in yaml.safe_load_all(path.read_text())
]
_OLDEST = "1.30"


def of(kind: str) -> list[dict[str, Any]]:
    return [each for each in MANIFESTS if each["kind"] == kind]


[SET] = of("StatefulSet")
[JOB] = of("Job")
PODS = {"gateway": SET["spec"]["template"]["spec"], "migrate": JOB["spec"]["template"]["spec"]}
[GATEWAY] = PODS["gateway"]["containers"]
LABELS = SET["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']} {m['metadata'].get('name', '')}")
def test_the_schema(manifest: dict[str, Any]) -> None:
    """Of the oldest release that we say, and of the newest known here; no field is made up."""
    for release in (_OLDEST, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(manifest, release, strict=True)


def test_a_field_that_is_made_up() -> None:
    """Is refused by that validator."""
    wrong = {**SET, "spec": {**SET["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _OLDEST, strict=True)


def test_the_kustomization() -> None:
    """It has all files but the migration, which is for each release, and one version of the image: ours."""
    there = {path.name for path in FOLDER.glob("*.yaml")}
    assert {*KUSTOMIZATION["resources"], "migrate.yaml", "kustomization.yaml"} == there
    [renamed] = KUSTOMIZATION["images"]
    assert renamed["name"] == GATEWAY["image"]
    assert renamed["newTag"] == __version__
    [migrate] = PODS["migrate"]["containers"]
    assert migrate["image"] == f"{renamed['newName']}:{renamed['newTag']}"
    assert (
        JOB["metadata"]["namespace"] == KUSTOMIZATION["namespace"] == of("Namespace")[0]["metadata"]["name"]
    )


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_restricted(name: str) -> None:
    """As the namespace enforces it, and more: the image's own user, nothing to write to but volumes, no token."""
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == image.UID
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    [namespace] = of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", PODS)
def test_settings(name: str) -> None:
    """Each is one, with a value that it can have; the address of the database is a secret."""
    [container] = PODS[name]["containers"]
    environment = {}
    for variable in container["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        environment[variable["name"]] = "postgresql://u:p@db/metrics" if secret else variable["value"]
        assert (secret is not None) == (variable["name"] == "INGESTOR_DATABASE_URL")
    found = image.settings(environment)
    if name == "migrate":
        return
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert str(found.data_dir.parent) in mounts
    assert not found.insecure
    for file in (found.tls_cert, found.tls_key, found.keys_file):
        assert file is not None
        assert mounts[str(file.parent)]["readOnly"] is True
        assert "subPath" not in mounts[str(file.parent)]
    pod = PODS[name]
    drain_s = found.drain_timeout.total_seconds()
    asleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= asleep_s + drain_s + 10
    [claim] = SET["spec"]["volumeClaimTemplates"]
    volume = TypeAdapter(ByteSize).validate_python(claim["spec"]["resources"]["requests"]["storage"] + "B")
    assert found.journal_bytes_max < 0.9 * volume


def test_volumes() -> None:
    """All that is mounted is there; the journal's outlives pods and set."""
    declared = {volume["name"] for volume in PODS["gateway"]["volumes"]}
    declared |= {claim["metadata"]["name"] for claim in SET["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in GATEWAY["volumeMounts"]} == declared
    kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert SET["spec"]["persistentVolumeClaimRetentionPolicy"] == kept


def test_services_lead_to_the_pods() -> None:
    """By their labels, to ports that the image has; so do budget and policy."""
    named = {port["name"]: port["containerPort"] for port in GATEWAY["ports"]}
    assert list(named.values()) == image.PORTS
    services = {each["metadata"]["name"]: each["spec"] for each in of("Service")}
    assert services[SET["spec"]["serviceName"]]["clusterIP"] == "None"
    for service in services.values():
        assert service["selector"] == LABELS
        assert {port["targetPort"]: port["port"] for port in service["ports"]} == named
    [budget], [policy] = of("PodDisruptionBudget"), of("NetworkPolicy")
    assert budget["spec"]["selector"]["matchLabels"] == LABELS
    assert policy["spec"]["podSelector"]["matchLabels"] == LABELS
    let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert let_in == set(image.PORTS)
    assert SET["spec"]["selector"]["matchLabels"] == LABELS


async def test_probes_are_answered(database_url: str) -> None:
    """Each asks for a page that a server has; only the readiness of it looks at more than the process."""
    probes = {name: GATEWAY[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    speaks_tls = any(variable["name"] == "INGESTOR_TLS_CERT" for variable in GATEWAY["env"])
    for probe in probes.values():
        assert probe["port"] == "http"
        assert probe["scheme"] == ("HTTPS" if speaks_tls else "HTTP")
    async with gateway(database_url) as served, aiohttp.ClientSession() as http:
        for probe in probes.values():
            async with http.get(f"http://127.0.0.1:{served.http_port}{probe['path']}") as response:
                assert response.status == 200
