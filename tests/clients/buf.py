"""`buf curl`, which knows nothing of the server but its address."""

from __future__ import annotations

import asyncio
import json
import sysconfig
from pathlib import Path
from typing import Any


async def buf_curl(address: str, method: str, *options: str, body: str = "") -> list[Any]:
    """What it prints: the answers."""
    buf = Path(sysconfig.get_path("scripts")) / "buf"
    process = await asyncio.create_subprocess_exec(
        buf,
        *("curl", "--protocol", "grpc", "--http2-prior-knowledge", *options, *(["-d", "@-"] if body else [])),
        f"http://{address}/{method}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(body.encode())
    assert process.returncode == 0, err.decode()
    decoder, text, found = json.JSONDecoder(), out.decode().strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found
