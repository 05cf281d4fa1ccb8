"""Server reflection, v1 and v1alpha: tells clients that were built without our proto what is served here.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. It tells what is in the descriptors, comments
included, and so nothing of any data.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2 as v1
from grpclib.reflection.v1alpha import reflection_pb2 as v1alpha

from ingestor.transport.rpc import Descriptors, Rpc, bind_plain

_VERSIONS = (v1, v1alpha)
_SERVICES = [each.DESCRIPTOR.services_by_name["ServerReflection"] for each in _VERSIONS]
_FILES = [each.DESCRIPTOR for each in (*_VERSIONS, health_pb2, status_pb2, error_details_pb2)]


class Reflection:
    """Answers from these descriptors; `services` are the names of the others that are served. What those need, that
    is not in the descriptors, is added: health, reflection itself, and the details of errors."""

    def __init__(self, descriptors: Descriptors, services: Iterable[str]) -> None:
        descriptors.add(_FILES)
        self._descriptors = descriptors
        self._services = sorted({*services, *(each.full_name for each in _SERVICES)})
        self._answers: dict[str, Callable[[v1.ServerReflectionRequest], v1.ServerReflectionResponse]] = {
            "file_by_filename": self._by_name,
            "file_containing_symbol": self._by_symbol,
            "file_containing_extension": self._by_extension,
            "all_extension_numbers_of_type": self._extension_numbers,
            "list_services": self._list,
        }

    def rpcs(self) -> list[Rpc]:
        """Of both versions, whose messages are the same but for their names."""
        return [
            rpc
            for described, version in zip(_SERVICES, _VERSIONS, strict=True)
            for rpc in bind_plain(described, _Streaming(self, version.ServerReflectionResponse))
        ]

    def answer(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        """One answer, which may be an error, too: the stream goes on."""
        asked = request.WhichOneof("message_request")
        if asked is None:
            answer = _error(Code.INVALID_ARGUMENT, "the request asks for nothing")
        else:
            try:
                answer = self._answers[asked](request)
            except KeyError:
                answer = _error(Code.NOT_FOUND, f"not found: {asked}")
        answer.valid_host = request.host
        answer.original_request.CopyFrom(request)
        return answer

    def _by_name(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        return self._files(self._descriptors.pool.FindFileByName(request.file_by_filename))

    def _by_symbol(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        symbol = request.file_containing_symbol.removeprefix(".")
        pool = self._descriptors.pool
        try:
            return self._files(pool.FindFileContainingSymbol(symbol))
        except KeyError:  # of methods it knows nothing
            return self._files(pool.FindMethodByName(symbol).containing_service.file)

    def _by_extension(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        asked = request.file_containing_extension
        pool = self._descriptors.pool
        extended = pool.FindMessageTypeByName(asked.containing_type)
        extension = pool.FindExtensionByNumber(extended, asked.extension_number)
        return self._files(pool.FindFileContainingSymbol(extension.full_name))

    def _extension_numbers(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        pool = self._descriptors.pool
        extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
        numbers = sorted(each.number for each in pool.FindAllExtensions(extended))
        return v1.ServerReflectionResponse(
            all_extension_numbers_response=v1.ExtensionNumberResponse(
                base_type_name=extended.full_name, extension_number=numbers
            )
        )

    def _list(self, request: v1.ServerReflectionRequest) -> v1.ServerReflectionResponse:
        services = [v1.ServiceResponse(name=name) for name in self._services]
        return v1.ServerReflectionResponse(list_services_response=v1.ListServiceResponse(service=services))

    def _files(self, file: FileDescriptor) -> v1.ServerReflectionResponse:
        """The file, and behind it all that it imports, so that nobody has to ask again."""
        found: dict[str, bytes] = {}
        self._collect(file, found)
        return v1.ServerReflectionResponse(
            file_descriptor_response=v1.FileDescriptorResponse(file_descriptor_proto=found.values())
        )

    def _collect(self, file: FileDescriptor, found: dict[str, bytes]) -> None:
        if file.name not in found:
            found[file.name] = self._descriptors.files[file.name].SerializeToString()
            for each in file.dependencies:
                self._collect(each, found)


class _Streaming:
    """One version's service."""

    def __init__(self, reflection: Reflection, response: type[Message]) -> None:
        self._reflection = reflection
        self._response = response

    async def server_reflection_info(self, requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
        """An answer for each request."""
        async for request in requests:
            asked = v1.ServerReflectionRequest.FromString(request.SerializeToString())
            yield self._response.FromString(self._reflection.answer(asked).SerializeToString())


def _error(code: int, message: str) -> v1.ServerReflectionResponse:
    return v1.ServerReflectionResponse(
        error_response=v1.ErrorResponse(error_code=code, error_message=message)
    )
