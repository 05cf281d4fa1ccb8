"""README.md tells the truth: its settings are the settings, and what can be pasted works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from ingestor.access import KeysFile
from ingestor.cli.options import shown
from ingestor.settings import Settings
from tests.gateway import gateway

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text()
ROWS = dict(re.findall(r"^\| ([A-Z_]+) \|([^|]*)\|", TEXT, re.MULTILINE))


def test_the_table_has_every_setting_and_no_other() -> None:
    """By name, in the order of the code."""
    assert list(ROWS) == [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "data_dir"])
def test_the_defaults_are_those_of_the_code(name: str) -> None:
    """As `--help` shows them."""
    text = shown(Settings.model_fields[name].default)
    assert ROWS[name.upper()].strip().lower() == text.lower()


def shape(answer: Any) -> Any:
    """An answer without what depends on the moment: its fields, and of a list those of its first element."""
    if isinstance(answer, dict):
        return {name: shape(value) for name, value in answer.items()}
    return [shape(answer[0])] if isinstance(answer, list) else None


async def test_the_lines_that_can_be_pasted_work(database_url: str) -> None:
    """Each curl line has its answer, and the Python program stores its metric."""
    async with gateway(database_url) as running:
        pasted = TEXT.replace("\\\n", "")
        for word, path, answer in re.findall(r"\$ curl -d ('.*') +localhost:8080(\S+)\n(.*)\n", pasted):
            body = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
            assert await running.post(path, body) == (200, json.loads(answer))
        for path, answer in re.findall(r"\$ curl '?localhost:8080(/v1/[^'\s]+)'?.*\n(\{.*)\n", pasted):
            async with running.http.get(path) as response:
                assert (response.status, shape(await response.json())) == (200, shape(json.loads(answer)))
        [(line, answers)] = re.findall(r"\$ (printf [^\n]*buf curl [^\n]*)\n(.*?)```", pasted, re.DOTALL)
        told = await asyncio.create_subprocess_exec(
            *("sh", "-c", line.replace("50051", str(running.grpc_port))),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"},
        )
        out, _ = await told.communicate()
        assert out.decode() == answers
        [program] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program.replace("50051", str(running.grpc_port))),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert b"accepted=1" in out
        assert running.count("ingestor_metrics_received_total") == 8


async def test_the_session_with_keys_can_be_pasted(database_url: str, tmp_path: Path) -> None:
    """The key is made as shown, and each call is answered as shown."""
    section = TEXT.split("### Keys\n")[1].split("\n### ")[0]
    [session] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    [create] = re.findall(r"\$ KEY=\$\((.*)\)\n", session)
    file = tmp_path / "keys"
    async with gateway(database_url, data_dir=str(tmp_path)) as running:
        made = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *shlex.split(create)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "INGESTOR_KEYS_FILE": str(file)},
        )
        key = (await made.communicate())[0].decode().strip()
        found = KeysFile(file).read()
        assert found is not None
        await running.app._trust.keys.look()
        calls = re.findall(r"\$ (curl .*)\n(.*)\n", session)
        assert len(calls) == 3
        for line, answer in calls:
            words = shlex.split(line.replace("$KEY", key))
            header, body = (words[words.index(flag) + 1] for flag in ("-H", "-d"))
            name, _, value = header.partition(": ")
            path = words[-1].removeprefix("localhost:8080")
            async with running.http.post(path, data=body.encode(), headers={name: value}) as response:
                assert await response.text() == answer
