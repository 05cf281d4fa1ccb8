"""The message types of a request as they lie on the wire, for whoever turns them into columns.

They are the published ones with google.protobuf.Timestamp replaced by a message of the same fields that no
library knows: ptars makes an Arrow timestamp of a Timestamp, which saturates and carries over in silence where
seconds or nanoseconds are out of range. As two plain integers they can be checked.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

_TIMESTAMP = ".google.protobuf.Timestamp"
_PACKAGE = "ingestor.wire"


def wire_descriptor(descriptor: Descriptor) -> Descriptor:
    """This message type, in a pool of its own, with Timestamps as {seconds: int64, nanos: int32}."""
    pool = DescriptorPool()
    pool.Add(_timestamp_file())
    added: set[str] = set()
    _add(descriptor.file, pool, added)
    return pool.FindMessageTypeByName(descriptor.full_name)


def _add(file: object, pool: DescriptorPool, added: set[str]) -> None:
    name: str = file.name  # type: ignore[attr-defined] # upb's own class of file descriptors
    if name in added:
        return
    added.add(name)
    for dependency in file.dependencies:  # type: ignore[attr-defined]
        _add(dependency, pool, added)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)  # type: ignore[attr-defined]
    for message in proto.message_type:
        for field in message.field:
            if field.type_name == _TIMESTAMP:
                field.type_name = f".{_PACKAGE}.Timestamp"
    proto.dependency.append(f"{_PACKAGE}.proto")
    pool.Add(proto)


def _timestamp_file() -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    message = file.message_type.add(name="Timestamp")
    optional = FieldDescriptorProto.LABEL_OPTIONAL
    message.field.add(name="seconds", number=1, type=FieldDescriptorProto.TYPE_INT64, label=optional)
    message.field.add(name="nanos", number=2, type=FieldDescriptorProto.TYPE_INT32, label=optional)
    return file
