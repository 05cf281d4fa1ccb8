"""@grpc/grpc-js with @grpc/proto-loader against `ingestor serve`.

Skipped, with the reason, where Node.js or npm is missing, or npm can't fetch the packages.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpclib.health.v1 import health_pb2

from tests import npm
from tests.clients.conftest import Served

_HERE = Path(__file__).parent
_PROTOS = _HERE.parents[1] / "proto"
_GOOGLEAPIS = Path(annotations_pb2.__file__).parents[2]

# The first test waits for npm, which may have 3 MB to fetch.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(npm.TIMEOUT_S + 30)]


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder of the packages: those of the lock file, which has the hash of each."""
    try:
        npm.tool("node")
        return npm.locked("grpc-js", _HERE / "package-lock.json")
    except npm.Missing as missing:
        pytest.skip(f"no @grpc/grpc-js: {missing}")


async def grpc_js(modules: Path, served: Served, folder: Path, what: str) -> dict[str, Any]:
    """What grpc_js.mjs prints of these calls."""
    health = folder / "health.binpb"
    described = FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(described)
    health.write_bytes(FileDescriptorSet(file=[described]).SerializeToString())
    process = await asyncio.create_subprocess_exec(
        npm.tool("node"),
        *map(str, (_HERE / "grpc_js.mjs", modules, served.grpc_address, _PROTOS, _GOOGLEAPIS, health)),
        what,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    said: dict[str, Any] = json.loads(out)
    return said


async def test_calls_of_every_kind(modules: Path, served: Served, open_path: Path) -> None:
    """A metric, a batch with a bad one, a stream that is answered request by request, health, and a refusal with
    its details."""
    said = await grpc_js(modules, served, open_path, "calls")
    assert said["one"] == {"success": True}
    assert said["batch"]["accepted"] == "2"
    assert [each["index"] for each in said["batch"]["rejected"]] == ["1"]
    assert said["stream"] == ["1", "2", "1"]
    assert said["health"] == {"status": "SERVING"}
    assert (said["refused"]["code"], said["behind"]) == (3, {"success": True})
    assert "value" in said["refused"]["message"]
    assert said["refused"]["details"] == [["type.googleapis.com/google.rpc.BadRequest", ["value"]]]
    rows = await served.rows("js", 7)
    assert rows == [("m", value, '{"region": "eu"}' if value == 1 else "{}") for value in range(1, 8)]
    assert [row[1] for row in await served.rows("wrong js", 1)] == [2]


async def test_a_deadline(modules: Path, served: Served, open_path: Path) -> None:
    """While nothing is committed, who waits for that is told so in time; here it is stored all the same."""
    async with served.nothing_committed():
        said = await grpc_js(modules, served, open_path, "late")
    assert said["late"]["code"] == 4
    assert [row[1] for row in await served.rows("late js", 1)] == [1]
