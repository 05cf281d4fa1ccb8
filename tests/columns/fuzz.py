"""Drives the columnar path with mutated and hostile bytes: `python -m tests.columns.fuzz SEED CASES LAST_CASE`.

Run as a process of its own, because what it looks for may kill one. Each case is written to the file LAST_CASE
before it is tried; exit code 0 means that every case ended in an answer or in a refusal.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ingestor.errors import Invalid
from ingestor.model import DeadRow, Limits
from ingestor.transport.columns import NativeDecoder, ReferenceDecoder, native_available
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from tests.columns.metrics import request, series_request
from tests.recorder import Recorder, service_on

ELEMENTS_MAX = 1_000
# The day's beginning, so that a seed makes the same cases again.
NOW = int(time.time()) // 86_400 * 86_400
NAMES = [*["s", "m", "checkout"] * 10, "", "ü" * 100, "x" * 256, "nul\0", "\x9f"]
NUMBERS = [*[1.0, 2.5] * 10, 0.0, -0.0, 5e-324, float("nan"), float("inf"), 1e308]


def metric(rng: random.Random) -> dict[str, Any]:
    """Some fields of a metric, sensible or not."""
    fields: dict[str, Any] = {
        "service_name": rng.choice(NAMES),
        "metric_name": rng.choice(NAMES),
        "value": rng.choice(NUMBERS),
        "time": (
            rng.choice([*[NOW] * 10, 0, 2**62, -(2**63)]),
            rng.choice([*[0, 999_999_999] * 5, -1, 2**31 - 1]),
        ),
        "labels": {rng.choice(NAMES): rng.choice(NAMES) for _ in range(rng.choice([0, 1, 3, 40]))},
    }
    return {name: value for name, value in fields.items() if rng.random() < 0.95}


def series(rng: random.Random) -> dict[str, Any]:
    """Some fields of a series."""
    fields = metric(rng)
    fields.pop("time", None)
    count = rng.randrange(5)
    fields["time_unix_nano"] = [rng.choice([*[NOW * 10**9] * 10, 0, -1, 2**63 - 1]) for _ in range(count)]
    fields["value"] = [rng.choice(NUMBERS) for _ in range(count if rng.random() < 0.9 else count + 1)]
    return fields


def flip(rng: random.Random, body: bytearray) -> None:
    for _ in range(rng.randrange(1, 8)):
        if body:
            body[rng.randrange(len(body))] = rng.randrange(256)


def cut(rng: random.Random, body: bytearray) -> None:
    del body[rng.randrange(len(body) + 1) :]


def repeat(rng: random.Random, body: bytearray) -> None:
    at = rng.randrange(len(body) + 1)
    piece = bytes(body[at : at + rng.randrange(1, 30)])
    body[at:at] = piece * rng.choice([1, 2, 100])


def insert(rng: random.Random, body: bytearray) -> None:
    """Groups, huge lengths, unknown fields and wire types, at some place."""
    at = rng.randrange(len(body) + 1)
    body[at:at] = rng.choice(
        [
            b"\x0b" * rng.choice([1, 50, 60_000]),
            b"\x0a" + b"\xff" * 9 + b"\x01",
            b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
            b"\x12\x00" * 50,
            b"\x0a\x00" * 2_000,
            b"\xf8\xff\xff\xff\x0f\x01",
            b"\x2a\x00" * 30,
        ]
    )


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [flip, cut, repeat, insert]


def case(rng: random.Random) -> tuple[str, bytes]:
    """The method and the body of one case: valid at first, then mutated up to four times."""
    method = rng.choice(["LogMetrics", "WriteSeries"])
    count = rng.randrange(6)
    made = (
        request(*(metric(rng) for _ in range(count)))
        if method == "LogMetrics"
        else series_request(*(series(rng) for _ in range(count)))
    )
    body = bytearray(made)
    for _ in range(rng.randrange(5)):
        rng.choice(MUTATIONS)(rng, body)
    return method, bytes(body)


class Forgetful(Recorder):
    """Takes everything and keeps nothing."""

    async def offer(self, batch: object, ack: object, request: object = None) -> Sequence[DeadRow]:
        return ()


def rpcs() -> dict[str, Rpc]:
    decoder = NativeDecoder if native_available() else ReferenceDecoder
    service = service_on(Forgetful(), Limits(rows_max=ELEMENTS_MAX))
    bound = Descriptors.of_package("ingestor_api").bind(service, ColumnOptions(decoder, ELEMENTS_MAX))
    return {rpc.path.rpartition("/")[2]: rpc for rpc in bound}


async def main(seed: int, cases: int, last_case: Path) -> None:
    """Tries that many cases. Raises whatever is neither an answer nor Invalid."""
    rng = random.Random(seed)
    methods = rpcs()
    answered = 0
    for _ in range(cases):
        method, body = case(rng)
        last_case.write_bytes(body)
        try:
            await methods[method].serve(body)
            answered += 1
        except Invalid:
            continue
    print(f"seed {seed}: {answered} of {cases} answered, the others refused")


if __name__ == "__main__":
    import asyncio

    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
