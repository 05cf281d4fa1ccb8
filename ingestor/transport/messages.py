"""Builds the betterproto2 message that a service method is typed with from the upb message that was decoded.

upb decodes (strictly, and in C); betterproto2 never sees a request's bytes. The field readers are compiled
once per message type, when the service is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from betterproto2 import Message as TypedMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ingestor.timestamps import to_datetime

Convert = Callable[[Any], Any]
_Reader = tuple[str, str, bool, Convert | None]
"""Our field's name, the proto's, whether it has presence, and how its value is converted (None: as it is)."""


class Converter:
    """Converters between the upb messages of a descriptor pool and typed messages, each made once."""

    def __init__(self) -> None:
        self._made: dict[str, Convert] = {}

    def to_typed(self, descriptor: Descriptor, typed: type[TypedMessage]) -> Convert:
        """A function from the upb message to `typed`."""
        if descriptor.full_name in self._made:
            return self._made[descriptor.full_name]
        readers: list[_Reader] = []

        def convert(message: Message) -> TypedMessage:
            values = {}
            for ours, theirs, presence, convert_value in readers:
                if presence and not message.HasField(theirs):
                    continue
                value = getattr(message, theirs)
                values[ours] = value if convert_value is None else convert_value(value)
            return typed(**values)

        # Known before its fields are: a message may contain itself.
        self._made[descriptor.full_name] = convert
        readers.extend(self._readers(descriptor, typed))
        return convert

    def _readers(self, descriptor: Descriptor, typed: type[TypedMessage]) -> Iterator[_Reader]:
        known = _known(typed)
        for field in descriptor.fields:
            ours = known.field_name_by_number[field.number]
            yield ours, field.name, field.has_presence, self._field(field, ours, typed)

    def _field(self, field: FieldDescriptor, ours: str, typed: type[TypedMessage]) -> Convert | None:
        known = _known(typed)
        meta = known.meta_by_field_name[ours]
        if meta.map_meta is not None:
            assert field.message_type is not None
            value_field = field.message_type.fields_by_name["value"]
            value = self._value(value_field, meta.map_meta[1].unwrap, known.cls_by_field[f"{ours}.value"])
            if value is None:
                return dict
            return lambda items: {key: value(item) for key, item in items.items()}
        one = self._value(field, meta.unwrap, known.cls_by_field[ours])
        if not field.is_repeated:
            return one
        return list if one is None else (lambda items: [one(item) for item in items])

    def _value(
        self, field: FieldDescriptor, unwrap: Callable[[], type] | None, kind: type[Any]
    ) -> Convert | None:
        if field.enum_type is not None:
            return kind
        if field.message_type is None:
            return None
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return lambda timestamp: to_datetime(timestamp.seconds, timestamp.nanos)
        if unwrap is None:
            return self.to_typed(field.message_type, kind)
        convert = self.to_typed(field.message_type, unwrap())
        return lambda message: convert(message).to_wrapped()


def _known(typed: type[TypedMessage]) -> Any:
    """What betterproto2 keeps of a message class: its fields by number, and their types."""
    return typed._betterproto  # type: ignore[arg-type] # a classproperty, which its annotation hides
