"""Answers that are written field by field, and those that can't be."""

from __future__ import annotations

from typing import Any

from ingestor.transport.messages import encoder
from tests.transport.library.service import Library


def test_a_message_within_itself_can_be_an_answer(library: Library) -> None:
    """Its writer would have to hold itself."""
    api = library.api
    shelf = api.Shelf(name="a", shelves=[api.Shelf(name="b"), api.Shelf(shelves=[api.Shelf(name="c")])])
    descriptor: Any = library.message("Shelf").DESCRIPTOR
    again: Any = library.message("Shelf").FromString(encoder(descriptor, api.Shelf)(shelf))
    assert [each.name for each in again.shelves] == ["b", ""]
    assert again.shelves[1].shelves[0].name == "c"


def test_an_answer_may_have_no_fields(library: Library) -> None:
    """google.protobuf.Empty, which betterproto2 shows as None."""
    assert library.rpc("DeleteBook")._encode(None) == b""
