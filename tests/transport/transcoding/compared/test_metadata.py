"""What grpc-gateway does with headers, and what is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

from ingestor.metadata import CallMetadata
from tests.transport.transcoding.served import Served


async def test_metadata(served: Served, metadata: list[CallMetadata]) -> None:
    """`Grpc-Metadata-X` in and out, `-Bin` as base64"""
    headers = {"Grpc-Metadata-FooBAR": "Value1", "Grpc-Metadata-Key-Bin": "+/8", "Custom-Header": "x"}
    answer = await served.ask("GET", "/v1/books/x", headers=headers)
    assert metadata[0].received == {"foobar": ["Value1"], "key-bin": [b"\xfb\xff"]}
    assert answer.headers.getall("Grpc-Metadata-X-One") == ["a", "b"]
    assert answer.headers["Grpc-Metadata-X-Bytes-Bin"] == "+/8="


async def test_binary_metadata(served: Served, metadata: list[CallMetadata]) -> None:
    """binary metadata that is no base64 is 400"""
    assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Metadata-X-Bin": "*"})).status == 400
    await served.ask("GET", "/v1/books/x", headers={"Grpc-Metadata-X-Bin": "-_8="})
    assert [each.received for each in metadata] == [{"x-bin": [b"\xfb\xff"]}]


async def test_metadata_that_is_no_ascii(served: Served) -> None:
    """metadata that is no ASCII is left out"""
    answer = await served.ask("GET", "/v1/books/x", headers={"Grpc-Metadata-X": "ü"})
    assert (answer.status, answer.json["code"]) == (400, 3)


async def test_timeouts(served: Served) -> None:
    """Grpc-Timeout bounds the call; what is none is 400"""
    for timeout, path, status in (
        *((f"5000000{unit}", "/v1/books/x", 200) for unit in "HMSmun"),
        ("10m", "/v1/books/slow", 504),
        ("10000u", "/v1/books/slow", 504),
        *((wrong, "/v1/books/x", 400) for wrong in ("1", "H", "1s", "x1S")),
    ):
        assert (await served.ask("GET", path, headers={"Grpc-Timeout": timeout})).status == status, timeout


async def test_authorization(served: Served, metadata: list[CallMetadata]) -> None:
    """Authorization is passed on"""
    await served.ask("GET", "/v1/books/x", headers={"Authorization": "Token foobar"})
    assert metadata[0].received == {"authorization": ["Token foobar"]}


async def test_other_headers(served: Served, metadata: list[CallMetadata]) -> None:
    """HTTP's permanent headers as `grpcgateway-...`; X-Forwarded-For and -Host; matchers of one's own"""
    headers = {"Accept": "x", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "x", "Cookie": "x"}
    await served.ask("GET", "/v1/books/x", headers=headers)
    assert metadata[0].received == {}


async def test_methods_in_headers(served: Served) -> None:
    """trailers; X-HTTP-Method-Override; POST as GET with a form"""
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-HTTP-Method-Override": "GET"}
    assert (await served.ask("POST", "/v1/books/x", b"full=true", form)).status == 405
