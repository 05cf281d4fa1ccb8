"""The schemas agree with the code that reads and prints JSON, whatever is in it."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings

from ingestor.errors import Invalid
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from tests.transport.openapi.library import descriptors, document

LIBRARY = document()
API = schemathesis.openapi.from_dict(LIBRARY)
POOL = descriptors().pool
# What no schema says: of how many digits a number is too large, and which messages there are for an Any.
NOT_SAID = re.compile(r"out of range|must be seconds|can not find message descriptor|any: must be")


@pytest.mark.parametrize(
    ("path", "method", "name"),
    [("/v1/everything", "PUT", "Everything"), ("/v1/names/{name}", "PATCH", "Book")],
)
def test_what_the_document_says_is_read_and_what_is_printed_is_in_it(
    path: str, method: str, name: str
) -> None:
    """Bodies made from the schema of what is sent are read, and the same messages printed are valid by the schema
    of what is answered."""
    message_class = GetMessageClass(POOL.FindMessageTypeByName(f"library.v1.{name}"))
    reader = JsonReader(message_class, POOL, elements_max=10_000)
    answered = {
        "$ref": f"#/components/schemas/library.v1.{name}.Output",
        "components": LIBRARY["components"],
    }
    validator = jsonschema_rs.validator_for(answered, validate_formats=True)
    read = []

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=API[path][method].as_strategy().map(lambda case: case.body))
    def check(body: Any) -> None:
        try:
            message = reader.read(json.dumps(body).encode())
        except Invalid as error:
            if not NOT_SAID.search(error.message):
                raise
        else:
            read.append(body)
            validator.validate(json.loads(print_json(message, POOL)))

    check()
    assert len(read) > 50


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_float_is_in_it_both_ways(sign: int) -> None:
    """It is printed with fewer digits than it is read with, as a number that is a little larger."""
    everything = GetMessageClass(POOL.FindMessageTypeByName("library.v1.Everything"))
    reader = JsonReader(everything, POOL, elements_max=10)
    sent, answered = (
        jsonschema_rs.validator_for(
            {
                "$ref": f"#/components/schemas/library.v1.Everything.{name}",
                "components": LIBRARY["components"],
            }
        )
        for name in ("Input", "Output")
    )
    largest = {"aFloat": sign * 3.4028234663852886e38}
    sent.validate(largest)
    answered.validate(json.loads(print_json(reader.read(json.dumps(largest).encode()), POOL)))
    too_large = {"aFloat": sign * 3.5e38}
    assert not sent.is_valid(too_large)
    with pytest.raises(Invalid, match="too"):
        reader.read(json.dumps(too_large).encode())


@pytest.mark.parametrize(
    "field", ["anInt32", "aDouble", "aBool", "byInt", "anEmpty", "uints", "aTime", "aList"]
)
def test_what_it_excludes_is_refused(field: str) -> None:
    """A value of the wrong type, and a field that doesn't exist."""
    message_class = GetMessageClass(POOL.FindMessageTypeByName("library.v1.Everything"))
    reader = JsonReader(message_class, POOL, elements_max=10)
    sent = {
        "$ref": "#/components/schemas/library.v1.Everything.Input",
        "components": LIBRARY["components"],
    }
    validator = jsonschema_rs.validator_for(sent, validate_formats=True)
    for body in ({field: "x"}, {f"{field}X": None}):
        assert not validator.is_valid(body)
        with pytest.raises(Invalid):
            reader.read(json.dumps(body).encode())
