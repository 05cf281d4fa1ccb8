"""A file system that is gone holds up those who look at its files, and nobody else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.certificates import Pki
from tests.server_process import serve

# Run by Python at its start: each look at these files waits in the kernel for somebody who opens the pipe, as it
# waits for a network file system that is gone.
_SITE = """
import json, os

stat = os.stat

def hanging(path, *args, **kwargs):
    name = os.path.basename(path) if isinstance(path, os.PathLike) else ""
    if name in ("keys", "server.pem"):
        try:
            stat(os.environ["HANGING"])
        except FileNotFoundError:
            pass
        else:
            os.write(2, json.dumps({"message": "a look hangs: " + name}).encode() + b"\\n")
            os.close(os.open(os.environ["HANGING"], os.O_RDONLY))
    return stat(path, *args, **kwargs)

os.stat = hanging
"""
_GOOD = b'{"serviceName":"s","metricName":"m","value":1,"ack":"ACK_LEVEL_COMMITTED"}'


async def test_looks_that_hang_hold_up_nobody(
    database_url: str, open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither who stores, nor the end: keys and certificate may both lie there."""
    pki = Pki.make(open_path)
    site, pipe = open_path / "site", open_path / "pipe"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("HANGING", str(pipe))
    url = {"database_url": database_url, "drain_timeout": "5s"}
    async with serve(open_path, **url, **pki.settings) as server:
        os.mkfifo(pipe)
        for name in ("keys", "server.pem"):
            await server.until_logged(f"a look hangs: {name}")
        timeout, secure = aiohttp.ClientTimeout(10), aiohttp.TCPConnector(ssl=pki.client())
        async with aiohttp.ClientSession(connector=secure, timeout=timeout) as http:
            address = f"https://127.0.0.1:{server.http_port}/v1/metrics"
            async with http.post(address, data=_GOOD) as answer:
                assert answer.status == 200
        assert await server.stop(signal.SIGTERM, within_s=15) == 0
