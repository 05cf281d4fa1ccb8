"""A proto file's comments as Markdown, by the full names of what they stand at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

# What begins a line of its own in Markdown; other lines go on with the paragraph before them.
_OWN_LINE = re.compile(r"\s{2,}|[-*+] |\d+[.)] |#|\|")
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[A-Z`])", re.DOTALL)


class Comments:
    """The comments of these files, as far as they came with source information."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._texts: dict[str, str] = {}
        for file in files:
            for location in file.source_code_info.location:
                comment = location.leading_comments or location.trailing_comments
                if comment and (name := _name_at(file, location.path)):
                    self._texts[name] = markdown(comment)

    def of(self, full_name: str) -> str:
        """The comment at this message, field, enum, value, service or method; empty where there is none."""
        return self._texts.get(full_name, "")


def markdown(comment: str) -> str:
    """The text of a comment, each paragraph as one line, as renderers of Markdown may keep line breaks."""
    paragraphs: list[str] = []
    for paragraph in re.split(r"\n\s*\n", comment.strip("\n")):
        lines = ""
        for line in paragraph.split("\n"):
            text = line.removeprefix(" ").rstrip()
            lines += ("\n" if _OWN_LINE.match(text) else " ") + text if lines else text
        paragraphs.append(lines)
    return "\n\n".join(paragraphs).strip()


def first_sentence(text: str) -> str:
    """The first sentence of a comment, without its full stop: a summary."""
    paragraph = text.partition("\n")[0]
    found = _SENTENCE.match(paragraph)
    return (found[1] if found else paragraph).removesuffix(".")


def _name_at(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """The full name of what stands at this path of field numbers and indexes; empty for what has none."""
    names = [file.package] if file.package else []
    at: Any = file
    for number, index in zip(path[::2], path[1::2], strict=False):
        found = next(_children(at, number, index), None)
        if found is None:
            return ""
        # Values are named beside their enum, not below it.
        if isinstance(at, EnumDescriptorProto):
            names.pop()
        names.append(found.name)
        at = found
    # A path of odd length ends in an option or in the name itself.
    return ".".join(names) if len(path) % 2 == 0 and path else ""


def _children(at: Any, number: int, index: int) -> Iterator[Any]:
    field = at.DESCRIPTOR.fields_by_number.get(number)
    if field is None or not isinstance(at, _NAMED):
        return
    children = getattr(at, field.name)
    if field.is_repeated and field.message_type is not None and "name" in field.message_type.fields_by_name:
        yield children[index]


_NAMED = (FileDescriptorProto, DescriptorProto, EnumDescriptorProto, ServiceDescriptorProto)
