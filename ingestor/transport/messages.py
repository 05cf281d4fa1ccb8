"""Between upb messages and the betterproto2 messages that service methods are typed with.

upb decodes (strictly) and encodes, in C: betterproto2 never sees bytes, and its own encoding takes 5 us for a
message that says `true`. The readers and writers of fields are compiled once per message type, when the service is
bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from betterproto2 import Message as TypedMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.encoded import Encoded
from ingestor.timestamps import microseconds, to_datetime, to_timedelta

Convert = Callable[[Any], Any]
# Types of which equal values are written alike, as 0.0 and -0.0 are not.
_COUNTS = (FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_ENUM)
_REMEMBERED_MAX = 64
_LONG = 1_000
_Write = Callable[[Any, Any], None]
_MICROSECOND = timedelta(microseconds=1)
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
        if field.message_type.full_name == "google.protobuf.Duration":
            return lambda duration: to_timedelta(duration.seconds, duration.nanos)
        if unwrap is None:
            return self.to_typed(field.message_type, kind)
        convert = self.to_typed(field.message_type, unwrap())
        return lambda message: convert(message).to_wrapped()


def is_long(message: TypedMessage) -> bool:
    """Whether it holds a list that takes milliseconds to be encoded."""
    return any(
        len(items := getattr(message, name)) > _LONG and not isinstance(items, Encoded)
        for name, meta in _known(type(message)).meta_by_field_name.items()
        if meta.repeated
    )


def encoded_lists(message: TypedMessage, names: Iterable[str]) -> dict[str, Encoded[Any]]:
    """Those of its lists, by these names, that are encoded already."""
    return {name: items for name in names if isinstance(items := getattr(message, name), Encoded)}


def encoder(descriptor: Descriptor, typed: type[TypedMessage]) -> Callable[[TypedMessage], bytes]:
    """A function from messages of `typed` to their bytes."""
    write = _Writers().of_message(descriptor, typed)
    message_class = GetMessageClass(descriptor)

    def encode(message: TypedMessage) -> bytes:
        target = message_class()
        write(message, target)
        return target.SerializeToString()

    counts = descriptor.fields and all(
        field.cpp_type in _COUNTS and not field.is_repeated for field in descriptor.fields
    )
    return (
        _remembering(encode, [typed_name(field, typed) for field in descriptor.fields]) if counts else encode
    )


def _remembering(
    encode: Callable[[TypedMessage], bytes], names: list[str]
) -> Callable[[TypedMessage], bytes]:
    """`encode` for messages of few values, which most of a method's answers have in common."""
    values_of = attrgetter(*names)
    known: dict[Any, bytes] = {}

    def encode_or_remember(message: TypedMessage) -> bytes:
        values = values_of(message)
        encoded = known.get(values)
        if encoded is None:
            encoded = encode(message)
            if len(known) < _REMEMBERED_MAX:
                known[values] = encoded
        return encoded

    return encode_or_remember


def typed_name(field: FieldDescriptor, typed: type[TypedMessage]) -> str:
    """What betterproto2 calls this field of `typed`."""
    name: str = _known(typed).field_name_by_number[field.number]
    return name


def unset_values(typed: type[TypedMessage]) -> dict[str, Any]:
    """What fields of `typed` hold that are not set, by their names there; without lists and maps, of which each
    message needs its own."""
    return {
        name: value
        for name, value in vars(typed()).items()
        if name in _known(typed).meta_by_field_name and not isinstance(value, list | dict)
    }


def typed_class(field: FieldDescriptor, typed: type[TypedMessage]) -> type[Any]:
    """The class of this field's values in `typed`."""
    known = _known(typed)
    found: type[Any] = known.cls_by_field[known.field_name_by_number[field.number]]
    return found


class _Writers:
    """Writers of typed messages into upb's, each made once. All of them are ours: betterproto2's own encoding gets
    negative durations wrong, and loses the sign of zeros."""

    def __init__(self) -> None:
        self._made: dict[str, _Write] = {}

    def of_message(self, descriptor: Descriptor, typed: type[TypedMessage]) -> _Write:
        """Writes what such a message holds into another one."""
        if descriptor.full_name in self._made:
            return self._made[descriptor.full_name]
        scalars: list[tuple[str, str]] = []
        others: list[tuple[str, str, _Write]] = []

        def write(message: Any, target: Any) -> None:
            for ours, theirs in scalars:
                if (value := getattr(message, ours)) is not None:
                    setattr(target, theirs, value)
            for ours, theirs, write_field in others:
                value = getattr(message, ours)
                if isinstance(value, Encoded):
                    target.MergeFromString(value.wire)
                elif value is not None:
                    write_field(value, getattr(target, theirs))

        # Known before its fields are: a message may contain itself.
        self._made[descriptor.full_name] = write
        for field in descriptor.fields:
            ours = typed_name(field, typed)
            if field.message_type is None and not field.is_repeated:
                scalars.append((ours, field.name))
            else:
                others.append((ours, field.name, self._field(field, ours, typed)))
        return write

    def _field(self, field: FieldDescriptor, ours: str, typed: type[TypedMessage]) -> _Write:
        """Writes what such a field holds into the target's own field."""
        known = _known(typed)
        meta = known.meta_by_field_name[ours]
        if field.message_type is None:
            return _write_list
        if meta.map_meta is not None:
            value = field.message_type.fields_by_name["value"]
            if value.message_type is None:
                return _write_map
            return _map_writer(
                self._value(value.message_type, meta.map_meta[1].unwrap, known.cls_by_field[f"{ours}.value"])
            )
        one = self._value(field.message_type, meta.unwrap, known.cls_by_field[ours])
        if field.is_repeated:
            return _list_writer(one)
        # Who writes a time sets its fields, and with them the time, be they zero.
        return one if field.message_type.full_name in _TIMES else _message_writer(one)

    def _value(
        self, message: Descriptor, unwrap: Callable[[], Any] | None, typed: type[TypedMessage]
    ) -> _Write:
        if (write := _TIMES.get(message.full_name)) is not None:
            return write
        if unwrap is None:
            return self.of_message(message, typed)
        wrapper = unwrap()
        write = self.of_message(message, wrapper)
        return lambda value, target: write(wrapper.from_wrapped(value), target)


def _message_writer(one: _Write) -> _Write:
    def write(value: Any, target: Any) -> None:
        target.SetInParent()  # also when nothing is in it
        one(value, target)

    return write


def _list_writer(one: _Write) -> _Write:
    def write(values: Any, target: Any) -> None:
        for value in values:
            one(value, target.add())

    return write


def _map_writer(one: _Write) -> _Write:
    def write(items: Any, target: Any) -> None:
        for key, value in items.items():
            one(value, target[key])

    return write


def _write_list(values: Any, target: Any) -> None:
    target.extend(values)


def _write_map(items: Any, target: Any) -> None:
    target.update(items)


def _write_moment(moment: datetime, target: Any) -> None:
    seconds, micros = divmod(microseconds(moment), 1_000_000)
    target.seconds, target.nanos = seconds, micros * 1_000


def _write_span(span: timedelta, target: Any) -> None:
    micros = span // _MICROSECOND
    seconds = abs(micros) // 1_000_000
    nanos = abs(micros) % 1_000_000 * 1_000
    target.seconds, target.nanos = (seconds, nanos) if micros >= 0 else (-seconds, -nanos)


_TIMES: dict[str, _Write] = {
    "google.protobuf.Timestamp": _write_moment,
    "google.protobuf.Duration": _write_span,
}


def _known(typed: type[TypedMessage]) -> Any:
    """What betterproto2 keeps of a message class: its fields by number, and their types."""
    return typed._betterproto  # type: ignore[arg-type] # a classproperty, which its annotation hides
