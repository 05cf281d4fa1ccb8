"""The schemas agree with the code that reads and prints JSON, whatever is in it."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from ingestor.errors import Invalid
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from tests.transport.library.service import Library

Document = dict[str, Any]
# What no schema says: of how many digits a number is too large, and which messages there are for an Any.
NOT_SAID = re.compile(
    r"out of range|key that must be an integer from|must be seconds|any: (must be|has an @type)"
)


def validator(document: Document, name: str) -> jsonschema_rs.Validator:
    """Of one schema of the document, with all that it refers to."""
    schema = {"$ref": f"#/components/schemas/library.v1.{name}", "components": document["components"]}
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def reader(library: Library, name: str, elements_max: int = 10_000) -> JsonReader:
    return JsonReader(library.message(name), library.descriptors.pool, elements_max=elements_max)


@pytest.mark.parametrize(
    ("path", "method", "name"),
    [("/v1/everything", "POST", "Everything"), ("/v1/shelves/{parent}/books", "POST", "Book")],
)
def test_what_the_document_says_is_read_and_what_is_printed_is_in_it(
    library: Library, document: Document, path: str, method: str, name: str
) -> None:
    """Bodies made from the schema of what is sent are read, and the same messages printed are valid by the schema
    of what is answered."""
    operation = schemathesis.openapi.from_dict(document)[path][method]
    reads, answered = reader(library, name), validator(document, f"{name}.Output")
    read = []

    # Nothing is made smaller: that takes minutes with messages that hold themselves.
    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(body=operation.as_strategy().map(lambda case: case.body))
    def check(body: Any) -> None:
        try:
            message = reads.read(json.dumps(body).encode())
        except Invalid as error:
            if not NOT_SAID.search(error.message):
                raise
        else:
            read.append(body)
            answered.validate(json.loads(print_json(message, library.descriptors.pool)))

    check()
    assert len(read) > 50


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_float_is_in_it_both_ways(library: Library, document: Document, sign: int) -> None:
    """It is printed with fewer digits than it is read with, as a number that is a little larger."""
    sent, answered = (validator(document, f"Everything.{way}") for way in ("Input", "Output"))
    largest = {"floatValue": sign * 3.4028234663852886e38}
    sent.validate(largest)
    message = reader(library, "Everything").read(json.dumps(largest).encode())
    answered.validate(json.loads(print_json(message, library.descriptors.pool)))
    too_large = {"floatValue": sign * 3.5e38}
    assert not sent.is_valid(too_large)
    with pytest.raises(Invalid, match="out of range"):
        reader(library, "Everything").read(json.dumps(too_large).encode())


@pytest.mark.parametrize(
    "field", ["int32Value", "doubleValue", "boolValue", "numbers", "empty", "int64s", "time", "list"]
)
def test_what_it_excludes_is_refused(library: Library, document: Document, field: str) -> None:
    """A value of the wrong type, and a field that doesn't exist."""
    sent = validator(document, "Everything.Input")
    for body in ({field: "x"}, {f"{field}X": None}):
        assert not sent.is_valid(body)
        with pytest.raises(Invalid):
            reader(library, "Everything").read(json.dumps(body).encode())


def test_an_enums_number_without_a_name_is_in_it_where_it_is_answered(
    library: Library, document: Document
) -> None:
    """Protobuf keeps such numbers, so that one who knows the name may send it by way of one who doesn't. Who sends
    is asked for names."""
    body = {"genre": 7, "genres": [1, 9], "byBool": {"true": 8}}
    message = reader(library, "Everything").read(json.dumps(body).encode())
    answered = json.loads(print_json(message, library.descriptors.pool))
    assert (answered["genre"], answered["genres"], answered["byBool"]) == (7, ["GENRE_NOVEL", 9], {"true": 8})
    validator(document, "Everything.Output").validate(answered)
    for wrong in ("GENRE_X", 1.5, None):
        assert not validator(document, "Everything.Output").is_valid({**answered, "genre": wrong})
    assert not validator(document, "Everything.Input").is_valid(body)
