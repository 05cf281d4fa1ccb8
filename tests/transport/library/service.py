"""The library: its messages, its routes, and a service that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from importlib import import_module
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import NotFound
from ingestor.transport.columns import ReferenceDecoder
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from ingestor.transport.transcoding import Router


class Library:
    """What tests have of it. `api` and `conformance` are its typed packages, `requests` those of all calls, typed;
    a call for the book `slow` waits for `release`."""

    def __init__(self, package: str) -> None:
        self.api: Any = import_module(f"{package}.library.v1")
        self.conformance: Any = import_module(f"{package}.conformance.v1")
        self.requests: list[Any] = []
        self.release = asyncio.Event()
        self.cancelled = 0
        self.descriptors = Descriptors.of_package(package)
        self.rpcs: list[Rpc] = self.descriptors.bind(_service(self), ColumnOptions(ReferenceDecoder, 100))
        self.router = Router(self.rpcs, self.descriptors.pool, elements_max=100)

    def rpc(self, name: str) -> Rpc:
        """The rpc of this name."""
        [found] = [rpc for rpc in self.rpcs if rpc.path.endswith(f"/{name}")]
        return found

    def message(self, name: str) -> type[Message]:
        """The upb class of a message, of the library's or by its full name."""
        full_name = name if "." in name else f"library.v1.{name}"
        found: type[Message] = GetMessageClass(self.descriptors.pool.FindMessageTypeByName(full_name))
        return found

    def new(self, name: str, **fields: Any) -> Any:
        """A upb message."""
        return self.message(name)(**fields)

    async def call(self, method: str, url: str, body: str | bytes = b"") -> str:
        """The JSON answer to a request, without HTTP."""
        path, _, query = url.partition("?")
        target = self.router.match(method, path)
        answer = await target.call(body.encode() if isinstance(body, str) else body, query)
        return answer.decode()

    def ask(self, method: str, url: str, body: str | bytes = b"") -> Any:
        """What the method is given for a request."""
        asyncio.run(self.call(method, url, body))
        return self.requests[-1]


class _Answers:
    """The methods. `library` and `api` are set before any of them is called."""

    library: Library
    api: Any

    async def get_book(self, message: Any) -> Any:
        self.library.requests.append(message)
        if message.name == "slow":
            try:
                await self.library.release.wait()
            except asyncio.CancelledError:
                self.library.cancelled += 1
                raise
        return self.api.Book(name=message.name, title="t" * 5000 if message.full else "t")

    async def list_books(self, message: Any) -> Any:
        self.library.requests.append(message)
        books = [self.api.Book(name=str(number)) for number in range(message.page_size)]
        return self.api.ListBooksResponse(books=books, next_page_token="next")

    async def create_book(self, message: Any) -> Any:
        self.library.requests.append(message)
        return message.book or self.api.Book()

    async def update_book(self, message: Any) -> Any:
        self.library.requests.append(message)
        return message.book

    async def delete_book(self, message: Any) -> Any:
        self.library.requests.append(message)

    async def tag_book(self, message: Any) -> Any:
        self.library.requests.append(message)
        return self.api.TagBookResponse(tags=message.tags)

    async def rate_book(self, message: Any) -> Any:
        self.library.requests.append(message)
        return self.api.RateBookResponse(stars=message.stars)

    async def read_file(self, message: Any) -> Any:
        self.library.requests.append(message)
        return message

    async def find_book(self, message: Any) -> Any:
        return await self.get_book(message)

    async def watch_shelf(self, message: Any) -> AsyncGenerator[Any, None]:
        """Two books; after the first of `shelves/half` the rest is not found, and none is in `shelves/none`."""
        if message.name == "shelves/none":
            raise NotFound("there is no such shelf")
        yield self.api.Book(name=f"{message.name}/books/1")
        if message.name == "shelves/half":
            raise NotFound("it broke")
        yield self.api.Book(name=f"{message.name}/books/2")

    async def import_books(self, messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        async for message in messages:
            yield message

    async def search(self, message: Any) -> Any:
        self.library.requests.append(message)
        return message


def _service(library: Library) -> Any:
    bases = (_Answers, library.api.LibraryServiceBase)
    return type("Service", bases, {"library": library, "api": library.api})()
