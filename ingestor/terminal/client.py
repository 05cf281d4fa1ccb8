"""Asks a server over HTTP. Whatever keeps it from answering is a ServerProblem, in one line; the key that it sends
is in none of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ingestor.errors import BadSetting, ServerProblem

_CONNECT_S, _ANSWER_S = 5.0, 10.0
# Of one line of a stream; a server sends far smaller ones.
_LINE_BYTES_MAX = 16 << 20
_UNAUTHENTICATED = 401


def headers_of(key: str | None) -> dict[str, str]:
    """What sends this key. Raises BadSetting, which does not quote it."""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        msg = (
            "INGESTOR_KEY must be one key: it has a line break, a space or another character that no key has"
        )
        raise BadSetting(msg)
    return {"authorization": f"Bearer {key}"}


def address_of(text: str) -> str:
    """The base of the URLs of the server at `http://HOST:PORT`, or HOST:PORT. Raises BadSetting."""
    address = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        msg = "--address must read http://HOST:PORT (the key comes from INGESTOR_KEY)"
        raise BadSetting(msg)
    return address.rstrip("/") + "/"


class Client:
    """One server, asked with `key` if there is one."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.address = address.rstrip("/")

    async def text(self, path: str, *, also: int | None = None) -> str:
        """What is at this path; an answer of status `also` is no failure. Raises ServerProblem."""
        patience = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with self._asked(path, {}, patience) as response:
            if response.status != also:
                await self._check(response)
            return await response.text()

    async def lines(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The messages of a call that streams, for as long as it does. Raises ServerProblem when it fails."""
        patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        async with self._asked(path, parameters, patience) as response:
            await self._check(response)
            async for line in response.content:
                message: dict[str, Any] = json.loads(line)
                if (error := message.get("error")) is not None:
                    raise ServerProblem(self.address, f"ended the stream: {error.get('message')}")
                yield message["result"]

    @asynccontextmanager
    async def _asked(
        self, path: str, parameters: Mapping[str, str], patience: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.get(path, params=parameters, timeout=patience) as response:
                yield response
        except TimeoutError as error:
            raise ServerProblem(self.address, "does not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            # asyncio's own text repeats the address; getaddrinfo's numbers are negative and not errno's.
            number = error.os_error.errno or 0
            reason = os.strerror(number).lower() if number > 0 else str(error.os_error.strerror).lower()
            raise ServerProblem(self.address, f"can't be reached: {reason}") from error
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise ServerProblem(self.address, f"stopped answering: {error}") from error

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.ok:
            return
        try:
            reason = (await response.json())["message"]
        except (aiohttp.ClientError, ValueError, KeyError, TypeError):
            reason = response.reason
        hint = " (the key comes from INGESTOR_KEY)" if response.status == _UNAUTHENTICATED else ""
        raise ServerProblem(self.address, f"answers {response.status}: {reason}{hint}")


@asynccontextmanager
async def connected(address: str, key: str | None) -> AsyncIterator[Client]:
    """A client of the server at this address. Raises BadSetting."""
    base = address_of(address)
    async with aiohttp.ClientSession(base, headers=headers_of(key), read_bufsize=_LINE_BYTES_MAX) as session:
        yield Client(session, base)
