"""Answers that are written field by field, and those that can't be."""

from __future__ import annotations

from typing import Any

import pytest

from ingestor.transport.messages import Converter, encoder
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served


def test_a_message_within_itself_can_be_an_answer(library: Library) -> None:
    """Its writer would have to hold itself."""
    api = library.api
    shelf = api.Shelf(name="a", shelves=[api.Shelf(name="b"), api.Shelf(shelves=[api.Shelf(name="c")])])
    descriptor: Any = library.message("Shelf").DESCRIPTOR
    again: Any = library.message("Shelf").FromString(encoder(descriptor, api.Shelf)(shelf))
    assert [each.name for each in again.shelves] == ["b", ""]
    assert again.shelves[1].shelves[0].name == "c"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("duration=-0.5s", {"duration": "-0.500s"}),
        ("duration=-2.25s", {"duration": "-2.250s"}),
        ("duration=-3s&durations[a]=-0.000001s", {"duration": "-3s", "durations": {"a": "-0.000001s"}}),
        ("duration=0s&doubleWrapper=-0.0", {"duration": "0s", "doubleWrapper": -0.0}),
        ("doubleValue=-0.0&optionalDouble=-0.0&doubles=-0.0&numbers[1]=-0.0", {"doubles": [-0.0]}),
        ("time=1969-12-31T23:59:59.5Z&times=0001-01-01T00:00:00Z", {"times": ["0001-01-01T00:00:00Z"]}),
        ("child.child.duration=-0.25s&child.stringWrapper=&mask=a,b.c", {"mask": "a,b.c"}),
    ],
)
async def test_what_is_asked_is_what_is_answered(
    library: Library, served: Served, query: str, said: dict[str, Any]
) -> None:
    """Over both protocols, to the sign of a zero."""
    answer = await served.ask("GET", f"/v1/everything?{query}")
    for name, value in said.items():
        assert repr(answer.json[name]) == repr(value)
    reader = JsonReader(library.message("Everything"), library.descriptors.pool, elements_max=100)
    asked = reader.read(answer.body)
    again = await library.rpc("Search").encoded(await library.rpc("Search").answer(asked))
    assert library.message("Everything").FromString(again) == asked
    assert print_json(asked, library.descriptors.pool) == answer.body


def test_every_answer_is_written_as_protobuf_would(library: Library) -> None:
    """Whatever it holds: the typed message of a request, written again, is the request."""
    descriptor: Any = library.message("Everything").DESCRIPTOR
    to_typed = Converter().to_typed(descriptor, library.api.Everything)
    encode = encoder(descriptor, library.api.Everything)
    for text in _MANY:
        asked = JsonReader(library.message("Everything"), library.descriptors.pool, elements_max=100).read(
            text.encode()
        )
        assert library.message("Everything").FromString(encode(to_typed(asked))) == asked


_MANY = [
    "{}",
    '{"child":{},"more":[{},{"child":{}}],"children":{"a":{},"b":{"more":[{}]}},"rangeChoice":{}}',
    '{"rangeChoice":{"least":0,"most":-1},"empty":{},"struct":{},"list":[],"any":{},"labels":{"a":"","":"b"}}',
    '{"textChoice":"","optionalDouble":0,"optionalString":"","boolWrapper":false,"int64Wrapper":"0"}',
    '{"genres":[0,1,7],"byBool":{"true":1,"false":9},"genre":5,"numbers":{"-1":-0.0,"0":"NaN"}}',
    '{"struct":{"a":[1,null,{"b":true},"x",[]]},"value":null,"list":[null,-0.0],"wrappers":{"1":"","2":"x"}}',
    '{"value":{"a":-0.0},"any":{"@type":"x/library.v1.Book","pages":"3","sequel":{}},"blobs":["","YQ=="]}',
    '{"time":"1970-01-01T00:00:00Z","duration":"0s","mask":"","durations":{"a":"-0.5s"},"bytesWrapper":"YQ=="}',
]


def test_an_answer_may_have_no_fields(library: Library) -> None:
    """google.protobuf.Empty, which betterproto2 shows as None."""
    assert library.rpc("DeleteBook").encode(None) == b""
