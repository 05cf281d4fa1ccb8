"""Whatever is sent, the caller hears of it as a refusal, and nothing else is raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.errors import Refusal
from ingestor.transport.compression import inflated
from ingestor.transport.http.compression import takes_gzip
from ingestor.transport.http.metadata import received
from ingestor.transport.transcoding.json_body import JsonReader
from ingestor.transport.transcoding.query import Parameters
from tests.transport.library.service import Library

_settings = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def heard(call: Callable[[], object]) -> str:
    """What a caller hears: nothing, or a message that can be printed."""
    try:
        call()
    except Refusal as refusal:
        message = refusal.message
    else:
        message = ""
    assert not message or message.isprintable()
    return message


_piece = st.one_of(
    st.sampled_from(
        ["/", "v1", "books", "shelves", "files", "everything", ":", "tag", "raw", "%", "%2F", "%zz", "x"]
    ),
    st.text(max_size=3),
    st.characters(categories=["Cs"]),
)


@_settings
@given(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "*", "\udcff"]),
    st.lists(_piece, max_size=10).map("".join),
)
def test_paths(library: Library, method: str, path: str) -> None:
    """Surrogates, which stand for bytes that are no UTF-8, among them."""
    for look in (lambda: library.router.match(method, path), lambda: library.router.allowed(path)):
        heard(look)


_NAMES = """doubleValue int64_value boolValue stringValue bytesValue genre genres doubles labels labels[a]
numbers[1] by_bool[x] children more time times duration mask child child.time child.child.genre textChoice
rangeChoice.least struct value any int64Wrapper bytesWrapper durations[a] calledOtherwise optionalString"""
_texts = st.one_of(
    st.sampled_from(
        ["", "1", "-0", "1e3", "NaN", "true", "GENRE_POEM", "YQ==", "90s", "a,b.c", "9" * 400, "{}"]
    ),
    st.sampled_from(
        ["2026-01-02T03:04:05Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59-01:00", "315576000001s"]
    ),
    st.text(max_size=4),
)


@_settings
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(_NAMES.split()), _texts), st.sampled_from(["=", "", "&"]), _texts
        ),
        max_size=6,
    )
)
def test_queries(library: Library, pairs: list[tuple[str, str, str]]) -> None:
    """What is taken can be sent on."""
    message: Any = library.new("Everything")
    query = "&".join(map("".join, pairs))
    if not heard(lambda: Parameters(message.DESCRIPTOR, frozenset(), "").read(query, message)):
        message.SerializeToString()


_names = st.sampled_from(
    [*(name for name in _NAMES.split() if name.isidentifier()), "numbers", "[x]", "@type", "x"]
)
_types = [
    *("Book", "Everything", "Nope"),
    *(
        f"google.protobuf.{name}"
        for name in ("Any", "Value", "Struct", "Duration", "FieldMask", "Empty", "BoolValue")
    ),
]
_type_urls = st.sampled_from(_types).map(
    lambda name: f"type.googleapis.com/{name if '.' in name else f'library.v1.{name}'}"
)
_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(_texts, st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), _type_urls),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_names, st.sampled_from(["1", "true", "value"])), inner, max_size=4),
        st.fixed_dictionaries({"@type": _type_urls}, optional={"value": inner, "any": inner, "pages": inner}),
    ),
    max_leaves=8,
)


@_settings
@given(st.one_of(_values, st.dictionaries(_names, _values, max_size=4)))
def test_bodies(library: Library, value: Any) -> None:
    """Likewise."""
    reader = JsonReader(library.message("Everything"), library.descriptors.pool, elements_max=100)
    body = json.dumps(value).encode()
    if not heard(lambda: reader.read(body)):
        reader.read(body).SerializeToString()


@_settings
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"Grpc-Metadata-x", b"grpc-metadata-\xff-bin", b"Grpc-Metadata-b-bin"]),
            st.binary(max_size=6),
        )
    ),
    st.binary(max_size=20),
    st.text(max_size=20),
)
def test_headers_and_codings(headers: list[tuple[bytes, bytes]], body: bytes, accepted: str) -> None:
    """Likewise."""
    heard(lambda: received(headers))
    heard(lambda: inflated(body, 10))
    takes_gzip(accepted)
