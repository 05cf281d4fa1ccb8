"""A page in headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_ENDPOINT = "DevTools listening on "
_CODES = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
# Resolves to the text of the first element that a selector finds, as soon as it has one, with `then` done to it.
_WHEN_THERE = """new Promise(done => {{
  const look = () => {{
    const found = document.querySelector({selector});
    const text = found && (found.value || found.innerText);
    if (!text) return setTimeout(look, 20);
    {then};
    done(text);
  }};
  look();
}})"""


def chromium() -> str | None:
    """The browser's path, where there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Tab:
    """One page. `asked` has the URLs that it asked for, `complaints` what the browser had to say."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self._loaded = False
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def open(self, url: str) -> None:
        """Goes to this URL; returns when all of it is loaded."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        self._loaded = False
        await self.call("Page.navigate", url=url)
        while not self._loaded:
            self._note(await self._socket.receive_json())

    async def value(self, expression: str) -> Any:
        """What JavaScript says; a promise is awaited. What it throws is raised."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]["exception"].get("description")
        return said["result"].get("value")

    async def until(self, expression: str) -> None:
        """Waits until it is true; whoever waits sets a limit."""
        look = f"(function look() {{ if ({expression}) done(); else setTimeout(look, 20); }})()"
        await self.value(f"new Promise(done => {{ {look}; }})")

    async def look(self, *, width: int, height: int, scheme: str = "light") -> None:
        """As somebody with such a window, whose system is `light` or `dark`."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str) -> None:
        """Presses this key, by its name, and lets it go."""
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_CODES[key]
            )

    async def text(self, selector: str, then: str = "") -> str:
        """The text of the first element that the selector finds, once it has one."""
        expression = _WHEN_THERE.format(selector=json.dumps(selector), then=then)
        done = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        text: str = done["result"]["value"]
        return text

    async def click(self, selector: str) -> None:
        """Clicks on that element."""
        await self.text(selector, "found.click()")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the protocol's method answers."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": params})
        while (said := await self._socket.receive_json()).get("id") != self._calls:
            self._note(said)
        result: dict[str, Any] = said["result"]
        return result

    def _note(self, event: dict[str, Any]) -> None:
        params = event["params"]
        match event["method"]:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"]["text"])


@asynccontextmanager
async def tab(binary: str, profile: Path) -> AsyncIterator[Tab]:
    """A page of a browser of its own; `profile` is an empty folder for it."""
    async with browser(binary, profile) as base, new_tab(base) as opened:
        yield opened


@asynccontextmanager
async def new_tab(base: str) -> AsyncIterator[Tab]:
    """A page of the browser whose protocol is spoken at `base`, with no memory of the others. It is closed
    afterwards."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/json/version") as answer:
            whole = (await answer.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(whole) as socket:
            control = Tab(socket)
            context = (await control.call("Target.createBrowserContext"))["browserContextId"]
            target = await control.call("Target.createTarget", url="about:blank", browserContextId=context)
            id_ = target["targetId"]
            where = f"{base.replace('http', 'ws')}/devtools/page/{id_}"
            async with session.ws_connect(where, max_msg_size=0) as page:
                yield Tab(page)
            await control.call("Target.disposeBrowserContext", browserContextId=context)


@asynccontextmanager
async def browser(binary: str, profile: Path) -> AsyncIterator[str]:
    """A browser that is ended afterwards; gives the address where its protocol is spoken."""
    flags = ["--headless", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    process = await asyncio.create_subprocess_exec(
        binary, *flags, "about:blank", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield (await _endpoint(process)).replace("ws://", "http://").partition("/devtools")[0]
    finally:
        process.terminate()
        await process.communicate()


async def _endpoint(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if (text := line.decode().strip()).startswith(_ENDPOINT):
            return text.removeprefix(_ENDPOINT)
    msg = "the browser ended before it listened"
    raise AssertionError(msg)
