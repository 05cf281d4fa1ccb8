"""Bodies in gzip, both ways."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from ingestor.transport.compression import inflated
from ingestor.transport.http import compression
from ingestor.transport.http.compression import takes_gzip
from tests.transport.transcoding.served import BODY_MAX, Served


async def test_a_bomb_is_not_inflated(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """413, when the bound is passed and not when all is in memory; as much as the bound is taken."""
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < BODY_MAX
    peaks: list[int] = []
    inflate = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._inner = inflate(bits)

        def decompress(self, data: bytes, length_max: int) -> bytes:
            content = self._inner.decompress(data, length_max)
            peaks.append(len(content))
            return content

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    answer = await served.ask("POST", "/v1/everything", bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (413, 8)
    assert "inflated" in answer.json["message"]
    assert sum(peaks) == BODY_MAX + 1
    full = gzip.compress(b"{" + b" " * (BODY_MAX - 2) + b"}")
    assert (await served.ask("POST", "/v1/everything", full, {"Content-Encoding": "gzip"})).status == 200


def test_what_is_inflated_is_what_was_deflated() -> None:
    """Up to the bound, to the byte."""
    content = bytes(range(256)) * 10
    assert inflated(compression.deflated(content), len(content)) == content
    with pytest.raises(Exception, match="larger than 2559 bytes"):
        inflated(compression.deflated(content), len(content) - 1)


async def test_large_answers_leave_in_gzip_for_who_takes_it(served: Served) -> None:
    """Of calls and of pages. Small ones are left as they are; caches are told that it depends."""
    gzipped = {"Accept-Encoding": "gzip"}
    plain = await served.ask("GET", "/v1/books/x?full=true")
    assert ("Content-Encoding" in plain.headers, plain.headers["Vary"]) == (False, "Accept-Encoding")
    answer = await served.ask("GET", "/v1/books/x?full=true", headers=gzipped)
    assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(answer.body) == plain.body
    assert len(answer.body) == int(answer.headers["Content-Length"]) < len(plain.body)
    page = await served.ask("GET", "/page", headers=gzipped)
    assert len(json.loads(gzip.decompress(page.body))["padding"]) == 2000
    small = await served.ask("GET", "/v1/books/x", headers=gzipped)
    assert "Content-Encoding" not in small.headers
    assert "Vary" not in small.headers
    many = await served.ask("GET", "/v1/books?pageSize=1000", headers=gzipped)
    assert len(json.loads(gzip.decompress(many.body))) == 1000


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("GZip;q=0.5", True),
        ("x-gzip", True),
        ("br, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip; q = 0.1 , identity;q=0", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.5, identity;q=0.8", False),
        ("gzip;q=x", False),
    ],
)
def test_who_takes_gzip(header: str, taken: bool) -> None:
    """By the weights that the client gives."""
    assert takes_gzip(header) is taken
