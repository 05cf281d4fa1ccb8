"""What protobuf's conformance runner asks, by its conformance.proto, answered by our JSON reader and printer.

A program for that runner alone: its argument is a file with the descriptor set of the runner's protos. It skips
what has no JSON in it, and what would have unknown fields ignored.
"""

from __future__ import annotations

import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import Invalid
from ingestor.transport.transcoding.json_body import JsonReader, print_json

PROTOBUF, JSON = 1, 2
IGNORES_UNKNOWN = 3
_LENGTH = struct.Struct("<I")


class Testee:
    """Answers requests."""

    def __init__(self, protos: bytes) -> None:
        self._pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(protos).file:
            self._pool.Add(file)
        self.request: Any = self._class("conformance.ConformanceRequest")
        self._response: Any = self._class("conformance.ConformanceResponse")
        self._reader = cache(self._new_reader)

    def _class(self, name: str) -> type[Message]:
        found: type[Message] = GetMessageClass(self._pool.FindMessageTypeByName(name))
        return found

    def _new_reader(self, name: str) -> JsonReader:
        return JsonReader(self._class(name), self._pool, elements_max=1_000_000)

    def answer(self, request: Any) -> Any:
        """What became of it; a fault of ours is not caught, and ends the run."""
        sent, wanted = request.WhichOneof("payload"), request.requested_output_format
        if (sent, wanted) not in {
            ("json_payload", PROTOBUF),
            ("json_payload", JSON),
            ("protobuf_payload", JSON),
        }:
            return self._response(skipped="there is no JSON in it")
        if request.test_category == IGNORES_UNKNOWN:
            return self._response(skipped="unknown fields are refused")
        try:
            message = self._read(request, sent)
        except (Invalid, DecodeError) as error:
            return self._response(parse_error=str(error))
        if wanted == PROTOBUF:
            return self._response(protobuf_payload=message.SerializeToString())
        try:
            return self._response(json_payload=print_json(message, self._pool).decode())
        except (ValueError, json_format.SerializeToJsonError) as error:
            return self._response(serialize_error=str(error))

    def _read(self, request: Any, sent: str) -> Message:
        if sent == "protobuf_payload":
            return self._class(request.message_type).FromString(request.protobuf_payload)
        return self._reader(request.message_type).read(request.json_payload.encode())


def main() -> None:
    testee = Testee(Path(sys.argv[1]).read_bytes())
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(_LENGTH.size):
        [length] = _LENGTH.unpack(head)
        answer = testee.answer(testee.request.FromString(source.read(length))).SerializeToString()
        sink.write(_LENGTH.pack(len(answer)) + answer)
        sink.flush()


if __name__ == "__main__":
    main()
