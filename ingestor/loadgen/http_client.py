"""One HTTP/1.1 connection, which carries one request at a time.

It reads errors from the google.rpc.Status in the body, never sends a request twice, and never waits for a
server to come back: that is for the runner to decide.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from ingestor.loadgen.answers import (
    CODES,
    CONNECTION_LOST,
    MALFORMED,
    TIMEOUT,
    Answer,
    NotConnected,
    accepted,
    failed,
    unanswered,
)
from ingestor.loadgen.bodies import Bodies
from ingestor.loadgen.identity import client_context, key_headers
from ingestor.loadgen.plan import LoadPlan, Protocol

CONNECT_TIMEOUT_S = 5.0
_JSON_HEADERS: Final = {"Content-Type": "application/json"}
# For answers without a google.rpc.Status, as a proxy gives them.
_CODE_BY_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    405: "UNIMPLEMENTED",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class HttpClient:
    """Requests over one kept-alive connection; made inside the running loop."""

    protocol: Protocol = "http"

    def __init__(self, plan: LoadPlan, bodies: Bodies) -> None:
        single = plan.batch == 1
        self._url = plan.http.rstrip("/") + ("/v1/metrics" if single else "/v1/metrics:batch")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=client_context(plan) or True),
            timeout=aiohttp.ClientTimeout(total=plan.timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            headers={**_JSON_HEADERS, **key_headers(plan)},
        )
        self._bodies = bodies
        self._single = single

    def encode(self, first: int, size: int) -> bytes:
        """The body of a request with rows [first, first + size)."""
        return self._bodies.single(first) if self._single else self._bodies.batch(first, size)

    async def send(self, body: bytes, size: int) -> Answer:
        """Sends `size` encoded rows once; raises NotConnected when nothing was sent."""
        try:
            async with self._session.post(self._url, data=body) as response:
                content = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected(str(getattr(error, "os_error", error))) from error
        except TimeoutError:
            return unanswered(TIMEOUT)
        except (aiohttp.ClientError, OSError) as error:
            return unanswered(CONNECTION_LOST, str(error))
        if response.status == HTTPStatus.OK:
            return _accepted(content, size, single=self._single)
        return _failed(response, content)

    async def close(self) -> None:
        await self._session.close()


def _accepted(content: bytes, size: int, *, single: bool) -> Answer:
    try:
        answer = json.loads(content)
        if single:
            return accepted(size, int(answer.get("success") is True), ())
        rejected = tuple(
            (int(row.get("index", 0)), row.get("reason", "")) for row in answer.get("rejected", ())
        )
        return accepted(size, int(answer.get("accepted", 0)), rejected)
    except (ValueError, AttributeError, TypeError) as error:
        return unanswered(MALFORMED, str(error))


def _failed(response: aiohttp.ClientResponse, content: bytes) -> Answer:
    status = _status(content)
    number = status.get("code")
    if isinstance(number, int) and 0 < number < len(CODES):
        code = CODES[number]
    else:
        code = _CODE_BY_STATUS.get(response.status, "UNKNOWN")
    return failed(
        code,
        str(status.get("message", f"HTTP {response.status}")),
        retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
        permanent=response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _status(content: bytes) -> dict[str, Any]:
    try:
        status = json.loads(content)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _retry_after_s(header: str) -> float | None:
    # The other form of this header, a date, is left to the backoff.
    return float(header) if header.isascii() and header.isdigit() else None
