"""Fuzzed bytes for every decoder that there is, in this process: protobuf by rows and by the native and the plain
column decoder, JSON by rows and by columns, paths and queries.

Each ends with an answer or a refusal; whatever else is raised is Wrong. What reads is only decoded, not asked for.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import itertools
import random
from collections.abc import Coroutine, Iterator
from typing import Any

from ingestor.errors import Invalid, Refusal
from ingestor.model import Limits
from ingestor.transport.columns import NativeDecoder, ReferenceDecoder, native_available
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from ingestor.transport.transcoding import Router
from tests.columns.fuzz import ELEMENTS_MAX, Forgetful
from tests.fuzz import corpus
from tests.fuzz.http_requests import ROUTES, WEIGHTS, target
from tests.fuzz.mutations import BINARY, TEXT, mutated
from tests.fuzz.tally import Tally, Wrong
from tests.recorder import service_on

_CASES = 200
_TRIMMED_EVERY = 250
_READING = {corpus.QUERY_METRICS, corpus.LIST_SERIES, corpus.TAIL_METRICS}


class Side:
    """The rpcs with one column decoder, over gRPC's bytes and over JSON's."""

    def __init__(self, decoder: type[NativeDecoder] | type[ReferenceDecoder]) -> None:
        descriptors = Descriptors.of_package("ingestor_api")
        service = service_on(Forgetful(), Limits(rows_max=ELEMENTS_MAX))
        rpcs = descriptors.bind(service, ColumnOptions(decoder, ELEMENTS_MAX))
        self.rpcs = {rpc.path.rpartition("/")[2]: rpc for rpc in rpcs}
        self.router = Router(rpcs, descriptors.pool, elements_max=ELEMENTS_MAX)


class Decoders:
    """Cases without end, from a seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._messages, self._documents = corpus.messages(rng), corpus.documents(rng)
        self._sides = [Side(NativeDecoder)] if native_available() else []
        self._sides.append(Side(ReferenceDecoder))
        self._methods = [each for each in corpus.METHODS if each in self._sides[0].rpcs]

    async def some(self, tally: Tally) -> None:
        """A few cases. Raises Wrong."""
        rng = self._rng
        for _ in range(_CASES):
            side, chance = rng.choice(self._sides), rng.random()
            if chance < 0.5:
                method = rng.choice(self._methods)
                body = mutated(rng, self._messages[method], BINARY)
                await _told(tally, _decoded(side.rpcs[method], method, body), method, body)
            elif chance < 0.9:
                [method] = rng.choices(list(ROUTES), WEIGHTS)
                body = mutated(rng, self._documents[method], TEXT)
                await _told(tally, _read(side.router, "POST", ROUTES[method], body), method, body)
            else:
                path = target(rng)
                await _told(tally, _read(side.router, "GET", path, b""), "GET", path)


async def _decoded(rpc: Rpc, method: str, body: bytes) -> object:
    if method in _READING:
        return rpc.parse(body)
    return await (rpc.read(body) if rpc.streams else rpc.serve(body))


async def _read(router: Router, verb: str, path: bytes, body: bytes) -> object:
    raw, _, query = path.decode("latin-1").partition("?")
    route = router.match(verb, raw)
    if verb == "GET" or route.rpc.streams:
        return await route.read(body, query)
    return await route.call(body, query)


async def _told(tally: Tally, answering: Coroutine[Any, Any, object], what: str, case: bytes) -> None:
    try:
        await answering
        tally.note("answered")
    except Refusal as refusal:
        tally.note("invalid" if isinstance(refusal, Invalid) else type(refusal).__name__)
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error} from {what} {case!r}") from error


def run(port: int, seed: int, connections: int) -> Iterator[Tally]:
    """Cases without end; yields now and then. Raises Wrong."""
    del port, connections
    faulthandler.enable()
    decoders, tally = Decoders(random.Random(f"{seed}/decoders")), Tally()
    # What the allocator keeps for later is no leak: it goes back before memory is looked at.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: pad)
    with asyncio.Runner() as runner:
        for turn in itertools.count():
            runner.run(decoders.some(tally))
            if turn % _TRIMMED_EVERY == 0:
                trim(0)
            yield tally
