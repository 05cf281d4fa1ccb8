"""`ingestor top` and `tail` as somebody runs them, before a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway, gateway
from tests.server_process import begin, environment, run

UNREACHABLE = 7


def address(running: Gateway) -> str:
    return f"{running.host}:{running.http_port}"


async def send(running: Gateway, **metric: Any) -> None:
    body = {
        "serviceName": "checkout",
        "metricName": "orders",
        "value": 1,
        **metric,
        "ack": "ACK_LEVEL_COMMITTED",
    }
    assert await running.post("/v1/metrics", body) == (200, {"success": True})


@asynccontextmanager
async def tailing(
    running: Gateway, cwd: Path, *flags: str, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A tail that is known to watch."""
    env = environment() | variables
    process = await begin("tail", "--address", address(running), *flags, cwd=cwd, env=env)
    try:
        async with asyncio.timeout(30):
            while not running.count("ingestor_tail_readers"):
                await asyncio.sleep(0.02)
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("command", ["top", "tail"])
async def test_without_a_server_it_is_one_line_and_exit_code_7(tmp_path: Path, command: str) -> None:
    """It names the server, and is no traceback."""
    code, out, err = await run(command, "--address", "127.0.0.1:1", cwd=tmp_path)
    assert (code, out) == (UNREACHABLE, "")
    assert err == "ingestor: the server at http://127.0.0.1:1 can't be reached: connection refused\n"


@pytest.mark.parametrize(
    "given", ["ftp://x", "http://", "http://u:SECRET@h:1", "h:port", "http://h:1?k=SECRET"]
)
async def test_a_wrong_address_is_exit_code_2(tmp_path: Path, given: str) -> None:
    """How to write it is said, and no part of it, which may be a secret."""
    code, _, err = await run("top", "--address", given, cwd=tmp_path)
    assert code == 2
    assert "--address must read http://HOST:PORT" in err
    assert "SECRET" not in err


async def test_what_is_no_ingestor_is_said(tmp_path: Path, database_url: str) -> None:
    """A path that a server does not have is its refusal, in its own words."""
    async with gateway(database_url) as running:
        code, _, err = await run("top", "--address", f"http://{address(running)}/elsewhere", cwd=tmp_path)
    assert code == UNREACHABLE
    assert "answers 404: nothing is served at /elsewhere/metrics" in err


async def test_top_is_shown_once_where_nobody_watches(tmp_path: Path, database_url: str) -> None:
    """Plain text, without a terminal's codes: how it is, figures, and services."""
    async with gateway(database_url) as running:
        await send(running)
        code, out, err = await run("top", "--address", address(running), "--every", "0.1", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith(f"ingestor at http://{address(running)}  ready\n")
    for word in ("committed", "acknowledged in", "flushed in", "waiting", "dead letters", "checkout"):
        assert word in out
    assert "\x1b" not in out


async def test_top_is_live_at_a_terminal(tmp_path: Path, database_url: str) -> None:
    """It is drawn again and again, says when the server is gone, and ends with Ctrl-C, the terminal as it was."""
    terminal, other_end = pty.openpty()
    env = environment() | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    loop = asyncio.get_running_loop()
    shown = b""
    grown = asyncio.Event()

    def read() -> None:
        nonlocal shown
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            loop.remove_reader(terminal)
        grown.set()

    async def until(word: bytes, after: int = 0) -> None:
        while word not in shown[after:]:
            grown.clear()
            await asyncio.wait_for(grown.wait(), 20)

    async with gateway(database_url) as running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ingestor", "top", "--address", address(running), "--every", "0.2"),
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            cwd=tmp_path,
            env=env,
        )
        os.close(other_end)
        loop.add_reader(terminal, read)
        await until(b"committed")
        mark = len(shown)
        await send(running)
        await until(b"checkout", mark)
    await until(b"can't be reached")
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 130
    await until(b"\x1b[?1049l")
    assert b"Traceback" not in shown
    loop.remove_reader(terminal)
    os.close(terminal)


async def test_tail_prints_what_is_committed(tmp_path: Path, database_url: str) -> None:
    """Of the service and metric that are meant, a line each, until Ctrl-C; a name moves no cursor."""
    async with (
        gateway(database_url) as running,
        tailing(running, tmp_path, "--service", "checkout", "--metric", "orders") as process,
    ):
        assert process.stdout is not None
        await send(running, serviceName="search")
        await send(running, metricName="other")
        await send(running, value=12.5, labels={"region": "eu", "odd": "\x1b[2J\u202e"})
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line.rstrip().split("  ")[1:] == [
            "checkout",
            "orders",
            "12.5",
            "odd=\\x1b[2J\\u202e",
            "region=eu",
        ]
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("flag", ["", "--json"])
async def test_what_an_encoding_lacks_is_escaped(tmp_path: Path, database_url: str, flag: str) -> None:
    """And ends nothing; JSON stays JSON."""
    async with (
        gateway(database_url) as running,
        tailing(running, tmp_path, *flag.split(), PYTHONIOENCODING="ascii") as process,
    ):
        assert process.stdout is not None
        await send(running, serviceName="ünï", metricName="\u202em")
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode("ascii")
    if flag:
        metric = json.loads(line)
        assert (metric["serviceName"], metric["metricName"]) == ("ünï", "\u202em")
    else:
        assert line.split("  ")[1:3] == ["\\u00fcn\\u00ef", "\\u202em"]


async def test_top_names_services_in_any_encoding(tmp_path: Path, database_url: str) -> None:
    """Also those that are written from right to left on purpose."""
    async with gateway(database_url) as running:
        await send(running, serviceName="ünï\u202e")
        env = environment() | {"PYTHONIOENCODING": "ascii"}
        flags = ("--address", address(running), "--every", "0.1")
        process = await begin("top", *flags, cwd=tmp_path, env=env)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    assert b"\\u00fcn\\u00ef\\u202e " in out


async def test_top_on_a_full_disk_is_one_line(tmp_path: Path, database_url: str) -> None:
    """And no success."""
    async with gateway(database_url) as running:
        with Path("/dev/full").open("wb") as full:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ingestor", "top", "--address", address(running), "--every", "0.1"),
                stdout=full,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
                env=environment(),
            )
            _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (
        1,
        b"ingestor: the output can't be written: no space left on device\n",
    )


@pytest.mark.parametrize("command", ["top", "tail"])
async def test_a_key_that_is_none_is_named(tmp_path: Path, command: str) -> None:
    """By its variable, without its text, before any server is asked."""
    code, out, err = await run(command, "--address", "127.0.0.1:1", cwd=tmp_path, key="SECRET\nother")
    assert (code, out) == (2, "")
    assert err.startswith("ingestor: INGESTOR_KEY must be one key")
    assert "SECRET" not in err


async def test_what_tail_prints_as_json_can_be_sent_again(tmp_path: Path, database_url: str) -> None:
    """As it is."""
    async with gateway(database_url) as running, tailing(running, tmp_path, "--json") as process:
        assert process.stdout is not None
        await send(running, labels={"region": "eu"})
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        assert line["labels"] == {"region": "eu"}
        assert await running.post("/v1/metrics:batch", {"metrics": [line]}) == (
            200,
            {"accepted": "1", "rejected": []},
        )
        process.terminate()
        assert await process.wait() == 143


async def test_tail_ends_when_nobody_reads_it(tmp_path: Path, database_url: str) -> None:
    """As before `head`: without a word, and as a success."""
    async with gateway(database_url) as running, tailing(running, tmp_path) as process:
        transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()
        while process.returncode is None:
            await send(running)
            await asyncio.sleep(0.02)
        assert process.stderr is not None
        assert (process.returncode, await process.stderr.read()) == (0, b"")


async def test_a_server_that_stops_ends_a_tail(tmp_path: Path, database_url: str) -> None:
    """With exit code 7, and its reason."""
    async with gateway(database_url) as running, tailing(running, tmp_path) as process:
        await running.app.stop(5)
        _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == UNREACHABLE
    assert err.startswith(f"ingestor: the server at http://{address(running)} ".encode())
