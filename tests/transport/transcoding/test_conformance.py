"""The cases of protobuf's own JSON conformance suite, for proto3 and as far as they are about JSON.

Its runner is a program in C++, so they stand in conformance.txt: a case's name in the suite, `<` what is sent, `=`
what that says in protobuf's text format, `>` what is printed of it. Without `=` it is refused (which the suite
leaves open for what is there twice), without `<` there is no JSON for the message. test_conformance_runner.py runs
the suite itself, where it can be run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from ingestor.errors import Invalid
from ingestor.transport.messages import Converter
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from ingestor.transport.transcoding.plain import PlainReader
from tests.transport.library.service import Library

ALL_TYPES = "conformance.v1.AllTypes"
# Zeros are shown, as grpc-gateway shows them; proto3 JSON alone leaves them out.
SHOWN: dict[str, dict[str, int | None]] = {
    "SkipsDefaultPrimitive.Validator": {"FieldName13": 0},
    "NullValueInNormalMessage.Validator": {"optionalNullValue": None},
}


@dataclass
class Case:
    name: str
    sent: list[str] = field(default_factory=list)
    said: str | None = None
    printed: str | None = None

    @property
    def body(self) -> bytes:
        return "\n".join(self.sent).encode()


def _cases() -> list[Case]:
    found: list[Case] = []
    for line in Path(__file__).with_name("conformance.txt").read_text("utf-8").splitlines():
        mark, text = line[:3].strip(), line[4:]
        if mark == "<":
            found[-1].sent.append(text)
        elif mark == "=":
            found[-1].said = text
        elif mark == ">":
            found[-1].printed = text
        else:
            found.append(Case(line))
    return found


def _deep(kind: str, around: tuple[str, str], within: str, said: str) -> list[Case]:
    """25 levels are read, 200 are not."""
    before, after = around
    sent = {depth: f"{before * depth}{within}{after * depth}" for depth in (25, 200)}
    name = f"{kind}DeepNesting"
    field = "optionalStruct" if kind == "Struct" else "optionalValue"
    return [
        Case(f"{name}25", [f'{{"{field}": {sent[25]}}}'], said),
        Case(f"{name}200", [f'{{"{field}": {sent[200]}}}']),
    ]


def _all() -> list[Case]:
    objects, lists = ('{"n": ', "}"), ("[", "]")
    field = 'fields { key: "value" value { number_value: 1 } }'
    struct = 'fields { key: "n" value { struct_value { ' * 25 + field + " } } }" * 25
    values = "list_value { values { " * 25 + "number_value: 1" + " } }" * 25
    return [
        *_cases(),
        *_deep("Struct", objects, '{"value": 1}', f"optional_struct {{ {struct} }}"),
        *_deep("Value", objects, '{"value": 1}', f"optional_value {{ struct_value {{ {struct} }} }}"),
        *_deep("ListValue", lists, "1", f"optional_value {{ {values} }}"),
    ]


CASES = _all()


def named(cases: list[Case]) -> pytest.MarkDecorator:
    """A test for each."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def reader(library: Library) -> JsonReader:
    return JsonReader(library.message(ALL_TYPES), library.descriptors.pool, elements_max=100)


def said(library: Library, text: str) -> Message:
    """The message of a text in text format."""
    message = library.message(ALL_TYPES)()
    text_format.Parse(text, message, descriptor_pool=library.descriptors.pool)
    return message


def told(message: Message) -> bytes:
    """Two messages are the same where this is: NaN is not equal to itself."""
    return message.SerializeToString(deterministic=True)


@named([case for case in CASES if case.sent and case.said is not None])
def test_what_is_sent_is_read_and_comes_back_when_it_is_printed(library: Library, case: Case) -> None:
    """As the suite says it."""
    assert case.said is not None
    expected = said(library, case.said)
    read = reader(library).read(case.body)
    assert told(read) == told(expected)
    printed = print_json(read, library.descriptors.pool)
    assert told(reader(library).read(printed)) == told(expected)


@named([case for case in CASES if case.said is None and case.printed is None])
def test_what_is_no_proto3_json_is_refused(library: Library, case: Case) -> None:
    """Also what the suite leaves open: a field or a oneof that is there twice."""
    with pytest.raises(Invalid):
        reader(library).read(case.body)


@named([case for case in CASES if case.printed is not None])
def test_it_is_printed_as_the_suite_wants_it(library: Library, case: Case) -> None:
    """But for zeros, which are shown."""
    assert case.printed is not None
    printed = json.loads(print_json(reader(library).read(case.body), library.descriptors.pool))
    zeros = json.loads(print_json(library.message(ALL_TYPES)(), library.descriptors.pool))
    expected = {**zeros, **json.loads(case.printed)}
    assert printed == expected
    assert SHOWN.get(case.name, {}).items() <= printed.items()


@named([case for case in CASES if not case.sent])
def test_what_json_cannot_say_is_not_printed(library: Library, case: Case) -> None:
    """Rather than printed as something else."""
    assert case.said is not None
    with pytest.raises((ValueError, json_format.SerializeToJsonError)):
        print_json(said(library, case.said), library.descriptors.pool)


@named([case for case in CASES if case.sent])
def test_the_fast_reader_agrees(library: Library, case: Case) -> None:
    """Whatever it takes is read as the same, and it takes nothing that is refused."""
    descriptor: Any = library.message(ALL_TYPES).DESCRIPTOR
    fast = PlainReader(descriptor, library.conformance.AllTypes).read(case.body)
    if fast is not None:
        assert fast == Converter().to_typed(descriptor, library.conformance.AllTypes)(
            reader(library).read(case.body)
        )


def test_they_are_all_there() -> None:
    """Of version 33.2 and of what came since: so many, and none twice."""
    assert len(CASES) == len({case.name for case in CASES}) == 355
