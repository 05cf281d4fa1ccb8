"""Makes a package of the protos here, by the tools and options of `make gen`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from google.api import annotations_pb2

HERE = Path(__file__).parent


def compile_api(target: Path) -> None:
    """Writes messages, service base and descriptors, with their comments, into this new folder."""
    target.mkdir()
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{HERE}", f"-I{Path(annotations_pb2.__file__).parents[2]}"),
        *(
            f"--descriptor_set_out={target / 'descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
        ),
        f"--python_betterproto2_out={target}",
        "--python_betterproto2_opt=server_generation=async",
        *sorted(path.name for path in HERE.glob("*.proto")),
    ]
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL)
    (target / "__init__.py").touch()
