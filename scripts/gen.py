"""Writes gen/ingestor_api from proto/: betterproto2 messages, service base and stubs, and the
FileDescriptorSet that the server reads its routes and JSON mapping from.

It needs only the development requirements (protoc comes with grpcio-tools, google/api with
googleapis-common-protos). `--check` writes nothing and fails where gen/ is not what it would write.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gen" / "ingestor_api"
DESCRIPTORS = "descriptors.binpb"
INIT = '''"""Generated from proto/ by `make gen`: do not edit.

The messages, the service base and the client stubs of `analytics.v1`, and `descriptors.binpb`, the
FileDescriptorSet of the same files. Import it as this package: betterproto2 writes a `google` folder of
its own, which would shadow protobuf's if this folder were a source root.
"""
'''


def protos() -> list[str]:
    """The project's proto files, as protoc wants them named: relative to proto/, sorted."""
    return sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))


def generate(target: Path) -> None:
    """Writes the package into the empty folder `target`; raises CalledProcessError if protoc fails."""
    googleapis = Path(annotations_pb2.__file__).parents[2]
    descriptors = target / DESCRIPTORS
    scripts = sysconfig.get_path("scripts")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{googleapis}",
            f"--descriptor_set_out={descriptors}",
            "--include_imports",
            "--include_source_info",
            f"--python_betterproto2_out={target}",
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=server_generation=async",
            *protos(),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        # Away from the checkout: its settings of ruff, which formats the output, are not for generated code.
        cwd=target,
        # protoc finds the betterproto2 plugin, and the plugin finds ruff, on PATH.
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"},
    )
    descriptors.write_bytes(without_foreign_comments(descriptors.read_bytes()))
    (target / "__init__.py").write_text(INIT)


def without_foreign_comments(descriptor_set: bytes) -> bytes:
    """Keeps comments (which become API documentation) of our own files alone: Google's are 90 % of it."""
    parsed = FileDescriptorSet.FromString(descriptor_set)
    ours = set(protos())
    for file in parsed.file:
        if file.name not in ours:
            file.ClearField("source_code_info")
    return parsed.SerializeToString(deterministic=True)


def differences(fresh: Path, kept: Path) -> list[str]:
    """Paths, relative to gen/ingestor_api, that differ between a fresh generation and the kept one."""

    def listing(folder: Path) -> set[str]:
        paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in paths}

    names = listing(fresh) | listing(kept)
    _, differing, missing = filecmp.cmpfiles(fresh, kept, sorted(names), shallow=False)
    return sorted([*differing, *missing])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where gen/ is out of date"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "ingestor_api"
        fresh.mkdir()
        generate(fresh)
        changed = differences(fresh, PACKAGE)
        if arguments.check:
            for name in changed:
                print(f"gen/ingestor_api/{name} is not what proto/ gives: run `make gen`", file=sys.stderr)
            return 1 if changed else 0
        shutil.rmtree(PACKAGE, ignore_errors=True)
        shutil.copytree(fresh, PACKAGE)
        print(f"gen/ingestor_api: {len(changed)} files changed")
        return 0


if __name__ == "__main__":
    sys.exit(main())
