"""The library's API, generated once a run as `make gen` generates ours, with a service that says what it got."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2

from tests.transport.transcoding.library import Library

HERE = Path(__file__).parent
PACKAGE = "library_api"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The generated package, bound to a service that answers and remembers."""
    folder = tmp_path_factory.mktemp("library")
    target = folder / PACKAGE
    target.mkdir()
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{HERE}", f"-I{Path(annotations_pb2.__file__).parents[2]}"),
        *(f"--descriptor_set_out={target / 'descriptors.binpb'}", "--include_imports"),
        f"--python_betterproto2_out={target}",
        "--python_betterproto2_opt=server_generation=async",
        "library.proto",
    ]
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(
        command, check=True, cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL
    )
    (target / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    try:
        api: Any = importlib.import_module(f"{PACKAGE}.library.v1")
        yield Library(PACKAGE, api)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(autouse=True)
def _fresh(library: Library) -> None:
    """No test hears of another's calls."""
    library.requests.clear()
    library.release = asyncio.Event()
