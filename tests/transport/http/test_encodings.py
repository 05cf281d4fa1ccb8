"""Bodies in gzip are read whole or not at all; of other encodings nothing is taken."""

from __future__ import annotations

import gzip

import pytest

from tests.gateway import Gateway
from tests.transport.http.kit import GOOD


@pytest.mark.parametrize("coding", ["lizard", "gzip, gzip", "deflate", "identity, br"])
async def test_unknown_encodings_are_refused(running: Gateway, complaints: list[str], coding: str) -> None:
    """415 whatever is in them; such a body is not taken as it is."""
    headers = {"Content-Encoding": coding}
    async with running.http.post("/v1/metrics", data=GOOD.encode(), headers=headers) as answer:
        said = await answer.json()
    assert (answer.status, said["code"]) == (415, 3)
    assert said["message"] == f"send the body in gzip, or without content-encoding, not {coding}"
    assert running.count("ingestor_metrics_received_total") == 0


GZIPPED = gzip.compress(GOOD.encode(), mtime=0)


@pytest.mark.parametrize("coding", ["gzip", "X-GZip", "identity, gzip"])
async def test_gzipped_bodies_are_read(running: Gateway, coding: str) -> None:
    """As what is in them."""
    headers = {"Content-Encoding": coding}
    async with running.http.post("/v1/metrics", data=GZIPPED, headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, {"success": True})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (GZIPPED[:-4], "the body's gzip ended before its end"),
        (GZIPPED[:20], "the body's gzip ended before its end"),
        (b"", "the body's gzip ended before its end"),
        (b"corrupt", "the body is not gzip"),
        (GZIPPED[:-8] + b"\0" * 8, "the body is not gzip"),
        (GZIPPED + b"x", "something follows the body's gzip"),
        (GZIPPED + GZIPPED, "something follows the body's gzip"),
    ],
)
async def test_broken_gzip_is_400(running: Gateway, complaints: list[str], body: bytes, said: str) -> None:
    """Cut, corrupt, or with a wrong checksum: nothing of it is taken."""
    headers = {"Content-Encoding": "gzip"}
    async with running.http.post("/v1/metrics", data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["message"]) == (400, said)
    assert running.count("ingestor_metrics_received_total") == 0
    assert complaints == []


async def test_the_identity_encoding_is_none(running: Gateway) -> None:
    """It says that the body is as it is."""
    headers = {"Content-Encoding": "Identity"}
    async with running.http.post("/v1/metrics", data=GOOD.encode(), headers=headers) as answer:
        assert answer.status == 200
