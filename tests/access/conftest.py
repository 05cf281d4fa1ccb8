"""The doors that keys open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestor.access import Key, KeysFile
from tests.access.doors import PREFIX, Doors
from tests.access.kit import make
from tests.gateway import gateway


@pytest.fixture(params=["true", "false"], ids=["lane", "grpclib"])
async def doors(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncIterator[Doors]:
    file, keys, texts = KeysFile(tmp_path / "keys"), dict[str, Key](), dict[str, str]()
    for name, words in {
        "billing": (f"write:{PREFIX}", f"read:{PREFIX}"),
        "writer": ("write",),
        "reader": ("read",),
        "admin": ("admin",),
    }.items():
        keys[name], texts[name] = make(*words, name=name)
    file.change(lambda _: keys.values())
    async with gateway(database_url, keys_file=str(file.path), grpc_lane=request.param) as running:
        yield Doors(running, file, keys, texts)
