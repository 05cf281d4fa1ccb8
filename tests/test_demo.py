"""`ingestor demo`: it tells the truth, whatever surrounds it, and leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ingestor import demo
from ingestor.demo import free
from ingestor.demo_load import WAVES
from tests.server_process import begin, environment, run


async def test_it_heeds_no_settings_of_ours(open_path: Path) -> None:
    """Those of a real server, in the environment or in `.env`, would make it another demo, or none."""
    (open_path / ".env").write_text("INGESTOR_ADMISSION_WAIT=0\n")
    code, out, _ = await run(
        "demo",
        "--metrics",
        "500",
        cwd=open_path,
        queue_capacity="10",
        host="nowhere.invalid",
        drain_timeout="0",
    )
    assert code == 0
    assert "Accepted 500, stored 500: every accepted metric is stored exactly once." in " ".join(out.split())


async def test_fewer_than_were_sent_are_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing accepted and nothing stored agree, too, but show nothing."""

    async def nothing(*_: object) -> dict[str, Any]:
        return {"report": {"total": {"acknowledged": 0}}, "verification": {"ok": True}}

    monkeypatch.setattr(demo, "_send", nothing)
    assert await demo.demo(10) == 1
    assert "10 were sent" in capsys.readouterr().out


async def test_a_table_fits_into_a_terminal(open_path: Path) -> None:
    """80 columns show each label whole."""
    process = await begin("demo", "--metrics", "200", cwd=open_path, env=environment() | {"COLUMNS": "80"})
    out, _ = await asyncio.wait_for(process.communicate(), 50)
    assert "label_0=value_" in out.decode()
    assert max(map(len, out.decode().splitlines())) <= 80


@pytest.mark.parametrize("moment", ["Starting a server", "It serves", "Sending"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_a_signal_leaves_nothing_behind(
    open_path: Path, moment: str, number: signal.Signals, code: int
) -> None:
    """Neither the temporary directory nor that of the socket, although the signal comes again and again."""
    process = await begin("demo", cwd=open_path, env=environment() | {"TMPDIR": str(open_path)})
    assert process.stdout is not None
    async for line in process.stdout:
        if moment.encode() in line:
            break
    notes = [Path(note.read_text()) for note in open_path.glob("ingestor-demo-*/data/postgres.socket")]
    for _ in range(3):
        process.send_signal(number)
        await asyncio.sleep(0.1)  # as somebody presses Ctrl-C again who sees no end
        if process.returncode is not None:
            break
    _, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert [str(path) for path in open_path.rglob("*")][:9] == []
    assert [note for note in notes if note.exists()] == []
    assert notes or moment == "Starting a server"


async def test_a_wrong_number_is_explained(tmp_path: Path) -> None:
    """In words, not in names of functions; and the help lists the exit codes."""
    code, _, err = await run("demo", "--metrics", "x", cwd=tmp_path)
    assert code == 2
    assert "must be a whole number" in err
    assert "_positive" not in err
    _, out, _ = await run("demo", "--help", cwd=tmp_path)
    assert "exit codes:" in out


def test_its_load_is_nobody_elses() -> None:
    """Who tries the README's lines beside it sees their own values on a chart, and no others."""
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    assert not [wave for wave in WAVES if f'"{wave.service_name}"' in readme]


async def test_ports_that_are_taken_are_not_used(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor waited for, also when somebody takes one at the last moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not demo.free(port)
        monkeypatch.setattr(demo, "USUAL_PORTS", (0, port))
        monkeypatch.setattr(demo, "free", lambda _: True)
        app, addresses = await demo._started(open_path, usual_ports=True)
        await app.stop()
        assert addresses.http_port not in (0, port)
    assert free(port)


async def test_it_stays_for_the_page(open_path: Path) -> None:
    """With a load that goes on, the page's address on a line, and an end by Ctrl-C that is a success."""
    env = environment() | {"TMPDIR": str(open_path)}
    process = await begin("demo", "--metrics", "200", "--stay", cwd=open_path, env=env)
    assert process.stdout is not None
    told = b""
    while b"The page is at" not in told:
        line = await asyncio.wait_for(process.stdout.readline(), 50)
        assert line, told
        told += line
    [url] = re.findall(r"The page is at (http://\S+/)", told.decode())
    [body, target] = re.findall(r"^curl -d '(.*)' (\S+)$", told.decode(), re.MULTILINE)[0]
    assert target.startswith(url)
    assert ("not the usual ones" in told.decode()) == (f":{demo.USUAL_PORTS[1]}/" not in url)
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        async with session.get(url) as page:
            assert "<title>Ingestor</title>" in await page.text()
        async with session.post(target, data=body.encode()) as response:
            assert await response.json() == {"success": True}
        committed = re.compile(r'service_metrics_committed_total\{service="basket"\} (\d)')
        while True:
            async with session.get(f"{url}metrics") as metrics:
                if committed.search(await metrics.text()):
                    break
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 40)
    assert (process.returncode, err) == (0, b"")
    assert b"Stopping" in out
    assert [str(path) for path in open_path.rglob("*")][:9] == []
