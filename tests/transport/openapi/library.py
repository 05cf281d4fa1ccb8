"""The richer API of these tests, compiled from library.proto."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from google.api import annotations_pb2

from ingestor.transport.rpc import Descriptors
from ingestor.transport.transcoding.openapi import Info, describe

HERE = Path(__file__).parent
UNSERVED = "/library.v1.Library/Unserved"


@cache
def descriptors() -> Descriptors:
    """Those of library.proto, with its comments."""
    googleapis = Path(annotations_pb2.__file__).parents[2]
    with tempfile.NamedTemporaryFile() as made:
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"-I{googleapis}"]
        options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={made.name}"]
        subprocess.run([*protoc, *options, "library.proto"], check=True)
        return Descriptors(made.read())


def document() -> dict[str, Any]:
    """The OpenAPI document of everything in it but what isn't served."""
    made = descriptors()
    [service] = [service for file in made.files.values() for service in file.service]
    served = {f"/library.v1.Library/{method.name}" for method in service.method} - {UNSERVED}
    return describe(list(made.files.values()), made.pool, served, Info("Library", "1.2", "Lends books."))
