"""Headers become metadata and back."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ingestor.metadata import METADATA, CallMetadata
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served


async def test_headers_become_metadata_and_back(served: Served, metadata: list[CallMetadata]) -> None:
    """Those with the prefix, bytes under names in -Bin; Authorization, first of all that came under its name, and
    X-API-Key; nothing else. Whatever the answer is, it carries what was sent back."""
    headers = {
        "Grpc-Metadata-X-Tenant": "t 1",
        "grpc-metadata-x-key-bin": "+/8=,-_8",
        "Grpc-Metadata-Authorization": "other",
        "Authorization": "Bearer x",
        "X-API-Key": "y",
        "X-API-Kez": "z",
        "Grpc-Metadata-": "nameless",
        "X-Forwarded-For": "1.2.3.4",
    }
    answer = await served.ask("GET", "/v1/books/x", headers=headers)
    assert metadata[-1].received == {
        "x-tenant": ["t 1"],
        "x-key-bin": [b"\xfb\xff", b"\xfb\xff"],
        "authorization": ["Bearer x", "other"],
        "x-api-key": ["y"],
    }
    assert answer.headers.getall("Grpc-Metadata-X-One") == ["a", "b"]
    assert answer.headers["Grpc-Metadata-X-Bytes-Bin"] == base64.b64encode(b"\xfb\xff").decode()
    await served.ask("GET", "/v1/books/x")
    assert metadata[-1].received == {}, "nothing is left of the request before, on the same connection"
    late = await served.ask("GET", "/v1/books/slow", headers={"Grpc-Timeout": "10m"})
    assert (late.status, late.headers.getall("Grpc-Metadata-X-One")) == (504, ["a", "b"])


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
async def test_a_key_that_cannot_be_is_401(served: Served, complaints: list[str], name: str) -> None:
    """Base64 would help nobody."""
    answer = await served.ask("GET", "/v1/books/x", headers={name: "ü"})
    assert (answer.status, answer.json["code"], "-Bin" in answer.json["message"]) == (401, 16, False)
    assert complaints == []


@pytest.mark.parametrize(("name", "value"), [("Grpc-Metadata-X-Bin", "*"), ("Grpc-Metadata-X", "ü")])
async def test_metadata_that_cannot_be_is_400(
    served: Served, complaints: list[str], name: str, value: str
) -> None:
    """Bytes that are no base64, text that is no ASCII."""
    answer = await served.ask("GET", "/v1/books/x", headers={name: value})
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert name.removeprefix("Grpc-Metadata-").lower() in answer.json["message"].lower()
    assert complaints == []


@pytest.mark.parametrize("item", [("x-bin", "text"), ("x", b"bytes"), ("x", "a\r\nb: c"), ("x: y", "")])
async def test_metadata_that_cannot_be_sent_is_left_out(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch, complaints: list[str], item: Any
) -> None:
    """A mistake in a method, which has done its work all the same: it is logged, and must not become a header of
    somebody's choice."""

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            here = METADATA.get()
            assert here is not None
            here.sent += [item, ("y", "z")]

    monkeypatch.setattr(library, "requests", Requests())
    answer = await served.ask("GET", "/v1/books/x")
    names = [name for name in answer.headers if name.startswith("Grpc-Metadata-")]
    assert (answer.status, names) == (200, ["Grpc-Metadata-y"])
    assert len(complaints) == 1
