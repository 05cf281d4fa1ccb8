"""What is done to a good request: to its bytes, to its JSON, to its compression. Pure, from a random source alone.

The sizes are bounded, so that hostile means crooked and not large; what is large is what tests/hostile sends.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

from tests.columns.fuzz import cut, flip, insert, repeat

BODY_BYTES_MAX = 12_000
Mutation = Callable[[random.Random, bytearray], None]
_TOKENS = [
    *(
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0x1",
        b"1" * 400,
        b"9" * 5000,
        b"1.",
        b".5",
        b"1e-400",
    ),
    *(
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\\udc00\\ud800"',
        b'"\\x"',
        b'"',
        b"\\",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(
        b"[" * 500,
        b'{"a":' * 500,
        b"]",
        b"}",
        b",",
        b":",
        b"//x\n",
        b"/*",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\n",
    ),
    *(
        b'"value":1,',
        b'"metrics":[],',
        b'"service_name":"s","serviceName":"t",',
        b'"labels":{"a":"b","a":"c"},',
    ),
    *(
        b'"time":"9999-12-31T23:59:59.999999999Z",',
        b'"timeUnixNano":["1e3"],',
        b'"@type":"x",',
        b'"unknown":{},',
    ),
]


def token(rng: random.Random, body: bytearray) -> None:
    """Something that JSON has, or does not have, at some place."""
    at = rng.randrange(len(body) + 1)
    body[at:at] = rng.choice(_TOKENS)


def swallow(rng: random.Random, body: bytearray) -> None:
    """A few bytes are left out."""
    at = rng.randrange(len(body) + 1)
    del body[at : at + rng.randrange(1, 20)]


def one_byte(rng: random.Random, body: bytearray) -> None:
    """One bit is flipped."""
    if body:
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)


BINARY: list[Mutation] = [flip, cut, repeat, insert, one_byte, one_byte, swallow]
TEXT: list[Mutation] = [flip, cut, repeat, token, token, one_byte, swallow]


def mutated(rng: random.Random, sources: list[bytes], mutations: list[Mutation]) -> bytes:
    """One of these, as it is or changed up to four times, or spliced with another."""
    source = sources[int(rng.random() * len(sources))]
    chance = rng.random()
    if chance < 0.3:
        return source
    body = bytearray(source)
    if chance > 0.95:
        other = rng.choice(sources)
        body[rng.randrange(len(body) + 1) :] = other[rng.randrange(len(other) + 1) :]
    for _ in range(1 + int(rng.random() * 4)):
        mutations[int(rng.random() * len(mutations))](rng, body)
    return bytes(body[:BODY_BYTES_MAX])


def compressed(rng: random.Random, body: bytes) -> bytes:
    """In gzip, whole or broken."""
    made = bytearray(gzip.compress(body, 1) if rng.random() < 0.8 else zlib.compress(body, 1))
    chance = rng.random()
    if chance < 0.2:
        cut(rng, made)
    elif chance < 0.5:
        flip(rng, made)
    elif chance < 0.6:
        made += rng.choice([bytes(made), b"\0", b"garbage"])
    return bytes(made)
